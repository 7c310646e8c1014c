"""What a person sees: a live line on a terminal, plain lines in a log file."""

from __future__ import annotations

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcgan_dist.base.progress import terminal
from dcgan_dist.tracking.tracker import Row


def set_up_logging(rank: int) -> None:
    """Configures logging: rank 0 from INFO up; the other ranks from WARNING up, marked with their rank."""
    who = "" if rank == 0 else f"rank {rank}: "
    if terminal().is_terminal:
        handler: logging.Handler = RichHandler(console=terminal(), show_path=False, show_level=False)
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
        if terminal().is_terminal:
            self._progress = Progress(
                TextColumn("training"),
                BarColumn(bar_width=20),
                MofNCompleteColumn(),
                TimeRemainingColumn(),
                TextColumn("{task.fields[figures]}"),
                console=terminal(),
            )
            self._task = self._progress.add_task("training", total=total_images, completed=images_seen, figures="")
            self._progress.start()

    def advance(self, images: int) -> None:
        """Advances the bar; cheap enough for every step."""
        if self._progress:
            self._progress.advance(self._task, images)

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
        """Does nothing: pictures are not shown on the console."""

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Does nothing: checkpoints are not shown on the console."""

    def alert(self, title: str, text: str) -> None:
        """Does nothing: warnings are logged where they arise."""

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Stops the bar and restores the terminal."""
        if self._progress:
            self._progress.stop()


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"
