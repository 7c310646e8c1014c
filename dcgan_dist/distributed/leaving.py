"""How a rank ends: with one line on the screen and the same line in the file that torchrun reads.

torchrun ends with a table of the ranks that failed, and prints there what each has left in its error file. Importing
this module does not import torch, so that a typing error need not wait for it.
"""

from __future__ import annotations

import os
import socket
import sys
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, NoReturn

from dcgan_dist.base.errors import RunFailed, UserError, exit_cleanly, in_one_line, speaks_for_node

if TYPE_CHECKING:
    from dcgan_dist.distributed.world import World


SECONDS_BEHIND_THE_CULPRIT = 2.0
TORCHRUN_COUNTS_SECONDS = 1.0


def exit_as_rank(command: Callable[[], int | None]) -> None:
    """Runs `command` as a program that torchrun may have started on many ranks; see `errors.exit_cleanly`.

    One rank per node prints the error; every rank leaves it for torchrun.
    """
    exit_cleanly(command, quiet=not speaks_for_node(), at_failure=_leave_reason_first)


def leave_reason(error: Exception) -> None:
    """Writes `error` into the error file that torchrun gave this rank, if any; call it where the error is handled.

    Expected errors are written without a stack trace, which torchrun would show instead of the message.
    """
    if "TORCHELASTIC_ERROR_FILE" not in os.environ:
        return
    from torch.distributed.elastic.multiprocessing.errors import get_error_handler

    if not isinstance(error, (UserError, RunFailed)):
        get_error_handler().record_exception(error)
        return
    kind = UserError if isinstance(error, UserError) else RunFailed
    try:
        raise kind(str(error)) from None  # it writes down the error that is being handled
    except (UserError, RunFailed) as told:
        told.__traceback__ = None
        get_error_handler().record_exception(told)


def leave_out_of_memory(world: World, error: Exception) -> NoReturn:
    """Ends a rank that has run out of memory, with a line that says what to do."""
    _leave_first(
        f"rank {world.rank} on {socket.gethostname()} is out of memory ({_one_line(error)}); make "
        "--data.batch_size_per_rank or --data.global_batch_size smaller, start more ranks, or set --train.accumulate 2 "
        "--train.batch_norm local"
    )


def leave_after_the_culprit(world: World, error: Exception) -> NoReturn:
    """Ends a rank that lost its connection, late enough for torchrun to see the rank that caused it first."""
    who = f"rank {world.rank} on {socket.gethostname()}"
    print(f"{who} lost another rank and ends ({_one_line(error)})", file=sys.stderr, flush=True)
    time.sleep(SECONDS_BEHIND_THE_CULPRIT)
    leave_reason(RunFailed(f"{who} only ended because it lost another rank ({_one_line(error)})"))
    os._exit(1)


def is_lost_connection(error: Exception) -> bool:
    """Whether an error only means that another rank has gone."""
    words = ("gloo", "connection", "nccl")
    return isinstance(error, RuntimeError) and any(word in str(error).lower() for word in words)


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that a GPU, or the host, has no memory left for a tensor."""
    import torch

    return isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in str(error)


def _leave_first(line: str) -> NoReturn:
    """Ends this rank at once, so that torchrun reports it as the cause."""
    print(f"error: {line}", file=sys.stderr, flush=True)
    _leave_reason_first(RunFailed(line))
    os._exit(1)


def _leave_reason_first(error: Exception) -> None:
    """Leaves the reason a moment before the rank ends.

    torchrun takes the earliest for the cause, and counts whole seconds. The ranks that it ends because of this one are
    to come later.
    """
    leave_reason(error)
    if "TORCHELASTIC_ERROR_FILE" in os.environ:
        time.sleep(TORCHRUN_COUNTS_SECONDS)


def _one_line(error: Exception) -> str:
    return in_one_line(error, 200)
