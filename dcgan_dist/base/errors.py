"""The one kind of error a user can cause, and how a command ends on it. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable


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
