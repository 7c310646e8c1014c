"""Progress of work that takes a while: a bar on a terminal, a line now and then elsewhere. Imports rich when used."""

from __future__ import annotations

import contextlib
import functools
import sys
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

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
