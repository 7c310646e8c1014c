"""torchrun, which does not take a request to stop for a failure.

`python -m launch.torchrun` has torchrun's options and starts its agent in this very process. Asked to stop by a signal,
torchrun passes it on to the ranks, waits for them, and then ends with a stack trace and status 1, although every rank
has written its checkpoint. Here it ends with one line and status 0. Left alone by the other nodes, or after ranks that
failed, it ends with status 1 and without the stack of its own code, which hides theirs. What it says at the end is what
launch.after_run looks for.
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError

from launch.after_run import GAVE_UP, LOST_A_NODE, STOPPED_BY
from launch.rank import NOTE_OF_A_MISTAKE, USAGE_ERROR


def main() -> int:
    """Runs the ranks of this node; the exit status, which is 2 after a mistake of the user's."""
    with tempfile.TemporaryDirectory() as folder:
        note = Path(folder) / "mistake"
        os.environ[NOTE_OF_A_MISTAKE] = str(note)
        status = _run_agent()
        return USAGE_ERROR if note.exists() else status


def _run_agent() -> int:
    try:
        run.main(sys.argv[1:])
    except SignalException as request:
        print(f"{STOPPED_BY}{request.sigval.name}", file=sys.stderr, flush=True)
    except ChildFailedError as failure:
        rank, first = failure.get_first_failure()
        print(
            f"{failure}\n{GAVE_UP}rank {rank} failed first, with status {first.exitcode}", file=sys.stderr, flush=True
        )
        return 1
    except RendezvousError as error:
        print(f"{LOST_A_NODE}{error}", file=sys.stderr, flush=True)
        return 1
    except Exception as error:
        print(f"{GAVE_UP}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise
    return 0


if __name__ == "__main__":
    sys.exit(main())
