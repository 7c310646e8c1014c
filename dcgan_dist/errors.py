"""The one kind of error a user can cause, and how a command ends on it. Standard library only."""

from __future__ import annotations

import sys
from collections.abc import Callable


class UserError(Exception):
    """Something the user can put right: the message says what, which value or file, and what to do.

    Commands print it as one line and exit with status 2; it never shows a stack trace.
    """


def exit_cleanly(command: Callable[[], int | None], quiet: bool = False) -> None:
    """Runs `command` as a program: its result, or 2 after a `UserError`, becomes the exit status.

    `quiet` keeps the message back, for ranks whose neighbour prints the same one.
    """
    try:
        status = command() or 0
    except UserError as error:
        if not quiet:
            print(f"error: {error}", file=sys.stderr)
        status = 2
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        status = 130
    sys.exit(status)
