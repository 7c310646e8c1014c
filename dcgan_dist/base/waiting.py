"""What a person sees while something takes long: progress bars, and lines about waits for others.

rich is imported when a bar is shown.
"""

from __future__ import annotations

import contextlib
import functools
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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


Advance = Callable[[int], None]
"""Takes how many more are done."""
Stage = Callable[[str, int], Advance]
"""Begins a stage of the work, from its name and how many there are to do."""

SECONDS_BETWEEN_LINES = 10


@functools.cache
def terminal() -> Console:
    """Where bars and messages go. There is one, because only then do they not write over each other."""
    from rich.console import Console

    return Console(stderr=True)


@contextlib.contextmanager
def progress_stages(unit: str = "images", visible: bool = True) -> Iterator[Stage]:
    """Shows the progress of several stages, one after the other."""
    if not visible or not terminal().is_terminal:
        yield lambda title, total: _lines(title, total, unit) if visible else _nothing
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(20), MofNCompleteColumn(), TextColumn(unit))
    with Progress(*columns, TimeRemainingColumn(), console=terminal(), transient=True) as progress:

        def stage(title: str, total: int) -> Advance:
            for task in progress.task_ids:
                progress.remove_task(task)
            task = progress.add_task(title, total=total or None)
            return lambda count: progress.advance(task, count)

        yield stage


@contextlib.contextmanager
def progress_bar(title: str, total: int, unit: str = "images", visible: bool = True) -> Iterator[Advance]:
    """Shows the progress of one task."""
    with progress_stages(unit, visible) as stage:
        yield stage(title, total)


def _nothing(count: int) -> None:
    pass


def _lines(title: str, total: int, unit: str) -> Advance:
    done, next_line = 0, time.monotonic() + SECONDS_BETWEEN_LINES

    def advance(count: int) -> None:
        nonlocal done, next_line
        done += count
        if time.monotonic() >= next_line:
            print(f"{title}: {done} of {total} {unit}", file=sys.stderr, flush=True)
            next_line = time.monotonic() + SECONDS_BETWEEN_LINES

    return advance
