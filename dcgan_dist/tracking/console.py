"""What a person sees: a live line on a terminal, plain lines in a log file."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcgan_dist.tracking.tracker import Row

_console = Console(stderr=True)


def set_up_logging(rank: int) -> None:
    """Messages of rank 0 from INFO up, of the other ranks from WARNING up and marked with their rank."""
    who = "" if rank == 0 else f"rank {rank}: "
    if _console.is_terminal:
        handler: logging.Handler = RichHandler(console=_console, show_path=False, show_level=False)
        handler.setFormatter(logging.Formatter(f"{who}%(message)s"))
    else:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(logging.Formatter(f"%(asctime)s {who}%(message)s", "%H:%M:%S"))
    logging.basicConfig(level=logging.INFO if rank == 0 else logging.WARNING, handlers=[handler], force=True)


class ConsoleTracker:
    """A progress bar with the newest figures, or one line a row where the output is no terminal."""

    def __init__(self, total_images: int, images_seen: int) -> None:
        self._total = total_images
        self._progress: Progress | None = None
        if _console.is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=_console,
            )
            self._task = self._progress.add_task("training", total=total_images, completed=images_seen, figures="")
            self._progress.start()

    def advance(self, images_seen: int) -> None:
        """Moves the bar; cheap enough for every step."""
        if self._progress:
            self._progress.update(self._task, completed=images_seen)

    def log(self, row: Row) -> None:
        """Shows the newest figures."""
        figures = (
            f"{row['speed/images_per_second']:.0f} img/s  D {row['loss/discriminator']:.3f}  "
            f"G {row['loss/generator']:.3f}  D(x) {row['score/real']:.2f}  D(G(z)) {row['score/fake']:.2f}  "
            f"{row['memory/peak_gib']:.1f} GiB"
        )
        if self._progress:
            self._progress.update(self._task, completed=row["images_seen"], figures=figures)
            return
        remaining = (self._total - row["images_seen"]) / max(row["speed/images_per_second"], 1e-9)
        print(
            f"{row['images_seen']:>10,.0f}/{self._total:,} images  ETA {_clock(remaining)}  {figures}",
            file=sys.stderr,
            flush=True,
        )

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """Pictures are not for the console."""

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Nor are checkpoints."""

    def alert(self, title: str, text: str) -> None:
        """Warnings are logged where they arise."""

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Leaves the terminal as it was."""
        if self._progress:
            self._progress.stop()


@contextlib.contextmanager
def decoding_bar(total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    """A bar for the decoding at the start; the block calls what it gets with the number of images decoded so far."""
    with progress_bar("decoding", total, visible) as report:
        yield report


@contextlib.contextmanager
def progress_bar(what: str, total: int, visible: bool) -> Iterator[Callable[[int], None]]:
    """A bar on a terminal for work on images; the block calls what it gets with the number of images done so far."""
    columns = (TextColumn(what), BarColumn(bar_width=20), MofNCompleteColumn(), TimeRemainingColumn())
    visible = visible and _console.is_terminal
    with Progress(*columns, console=_console, disable=not visible, transient=True) as progress:
        task = progress.add_task(what, total=total)
        yield lambda done: progress.update(task, completed=done)


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
