"""Errors a user can cause, how a command ends on them, and with the torchrun that started it. Standard library only."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable

_PRCTL_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl(2)


class UserError(Exception):
    """Something the user can put right: the message says what, which value or file, and what to do.

    Commands print it as one line and exit with status 2; it never shows a stack trace.
    """


class Interrupted(UserError):
    """A request to stop that arrived before the first step: nothing is lost, and the run ends as preempted."""


class RunFailed(Exception):
    """The run cannot continue, through no mistake of the user's: one line and exit status 1. Every rank raises it."""


def in_one_line(error: object, longest: int | None = None) -> str:
    """Returns an error's message on one line, cut off after `longest` characters."""
    return " ".join(str(error).split())[:longest]


def exit_cleanly(
    command: Callable[[], int | None], quiet: bool = False, at_failure: Callable[[Exception], None] = lambda error: None
) -> None:
    """Runs `command` as a program: its result, 2 after a `UserError` or 1 after `RunFailed` is the exit status.

    `quiet` suppresses the message, for ranks whose neighbour prints the same one. `at_failure` is called with every
    error, including unexpected ones, which still show their stack trace.
    """
    try:
        status = command() or 0
    except (UserError, RunFailed) as error:
        if not quiet:
            print(f"error: {error}", file=sys.stderr, flush=True)
        at_failure(error)
        status = 2 if isinstance(error, UserError) else 1
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    except Exception as error:
        at_failure(error)
        raise
    sys.exit(status)


def end_with_launcher() -> None:
    """Asks the system to end this rank as soon as its torchrun dies, as after kill -9.

    torchrun gives its ranks sessions of their own: without this they would train on, and write into the same folder as
    the ranks of a job that is started again. A process that torchrun did not start may outlive its parent.
    """
    library = ctypes.CDLL(None)
    if started_by_torchrun() and hasattr(library, "prctl"):  # Linux only
        library.prctl(_PRCTL_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def started_by_torchrun() -> bool:
    """Whether torchrun started this process; RANK and LOCAL_RANK may also be left over in a shell."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def speaks_for_node() -> bool:
    """Whether this process should print what every rank of its node would print in the same words.

    In a terminal without torchrun it is: there LOCAL_RANK is something left over.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0" or (not started_by_torchrun() and sys.stderr.isatty())


def is_restart() -> bool:
    """Whether torchrun or SLURM has restarted this command."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
