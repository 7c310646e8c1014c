"""Tells the user about long waits: what for, since when and until when. Standard library only."""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections.abc import Callable, Iterator

PATIENCE_SECONDS = 10.0


@contextlib.contextmanager
def told_if_long(
    what: str | Callable[[], str], limit_seconds: float | None = None, advice: str = "", patience: float | None = None
) -> Iterator[None]:
    """Prints one line if the block, which waits for `what`, is still running after `patience` (10 seconds).

    `what` may be a function, asked at that moment, in another thread; "" means that nobody waits any more. The line
    says since when, with `limit_seconds` until when, and `advice`: what to do if the wait is in vain.
    """
    began = time.time()

    def tell() -> None:
        with contextlib.suppress(Exception):  # a word about the wait must not become a second problem
            text = what if isinstance(what, str) else what()
            if text:
                print(waiting_line(text, began, limit_seconds, advice), file=sys.stderr, flush=True)

    timer = threading.Timer(PATIENCE_SECONDS if patience is None else patience, tell)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join(timeout=1.0)  # it may be asking something that is closed after the block


def waiting_line(what: str, began: float, limit_seconds: float | None = None, advice: str = "") -> str:
    """Returns a line that says what is waited for, since when and until when; `began` is a Unix time."""
    until = "" if limit_seconds is None else f", until {clock(began + limit_seconds)}"
    return f"waiting for {what} since {clock(began)}{until}" + (f"; {advice}" if advice else "")


def clock(moment: float) -> str:
    """Formats a Unix time as the local time of day."""
    return time.strftime("%H:%M:%S", time.localtime(moment))
