"""torchrun, which does not take a request to stop for a failure.

`python -m launch.torchrun` has torchrun's options and starts its agent in this very process. Asked to stop by a signal,
torchrun passes it on to the ranks, waits for them, and then ends with a stack trace and status 1, although every rank
has written its checkpoint. Here it ends with one line and status 0. Left alone by the other nodes, or after ranks that
failed, it ends with status 1 and without the stack of its own code, which hides theirs. Of a place where nodes cannot
meet, such as a port in use, it tells in one line, with status 2 where that is a mistake. What it says at the end is
what launch.after_run looks for.
"""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

from dcgan_dist.base.errors import UserError
from launch.after_run import GAVE_UP, LOST_A_NODE, STOPPED_BY
from launch.nodes import CANNOT_MEET, Nodes
from launch.rank import NOTE_OF_A_MISTAKE, USAGE_ERROR


def main() -> int:
    """Runs the ranks of this node; the exit status, which is 2 after a mistake of the user's."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "mistake"
        os.environ[NOTE_OF_A_MISTAKE] = str(note)
        status = _run_agent()
        return USAGE_ERROR if note.exists() else status


def _run_agent() -> int:
    nodes = None
    try:
        nodes = Nodes.of_options(sys.argv[1:])
        with contextlib.nullcontext() if nodes is None else nodes.told_if_long():
            if nodes is not None:
                nodes.await_name()
                nodes.assert_port_is_free()
            run.main(sys.argv[1:])
    except SignalException as request:
        print(f"{STOPPED_BY}{request.sigval.name}", file=sys.stderr, flush=True)
    except ChildFailedError as failure:
        rank, first = failure.get_first_failure()
        print(
            f"{failure}\n{GAVE_UP}rank {rank} failed first, with status {first.exitcode}", file=sys.stderr, flush=True
        )
        return 1
    except UserError as mistake:
        print(f"{GAVE_UP}{mistake}", file=sys.stderr, flush=True)
        return USAGE_ERROR
    except CANNOT_MEET as error:
        why = error if nodes is None else nodes.why_not_met(error)
        mark = LOST_A_NODE if isinstance(error, RendezvousError) else GAVE_UP
        print(f"{mark}{why}", file=sys.stderr, flush=True)
        return USAGE_ERROR if isinstance(why, UserError) else 1
    except Exception as error:
        print(f"{GAVE_UP}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
