"""What the training loop reports, and the trackers that pass it on."""

from __future__ import annotations

import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import IO, Protocol

from rich.logging import RichHandler
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from dcgan_dist.base.files import write_text
from dcgan_dist.base.waiting import terminal

log = logging.getLogger(__name__)

Row = dict[str, float]
"""One row of figures by name, for example `loss/generator`; always with `step` and `images_seen`."""


class Tracker(Protocol):
    """Receives the figures and pictures of a run."""

    def log(self, row: Row) -> None:
        """Takes one row of figures."""
        ...

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """Takes a picture that lies at `path`."""
        ...

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Takes a checkpoint that lies whole at `path`."""
        ...

    def alert(self, title: str, text: str) -> None:
        """Takes a warning that someone should look at."""
        ...

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Flushes everything; `status` is done, preempted, failed or rolled back.

        `warnings`: the kinds of signs of collapse that have not gone.
        """
        ...


class Trackers:
    """Several trackers as one. A tracker that cannot write is told of once and must not stop the training.

    Those in `queued` may be slow: a thread calls them in the order of what happened, and training does not wait.
    """

    def __init__(self, trackers: Sequence[Tracker], queued: Sequence[Tracker] = ()) -> None:
        self.trackers = list(trackers)
        self.queued = list(queued)
        self._queue = ThreadPoolExecutor(1, thread_name_prefix="trackers")
        self._complained: set[int] = set()

    def log(self, row: Row) -> None:
        """Hands the row to every tracker."""
        self._each(lambda tracker: tracker.log(row))

    def image(self, name: str, path: Path, images_seen: int, written: Future[bool] | None = None) -> None:
        """Hands the picture to every tracker; if `written` is given, once it is done, and not if it is false."""
        self._each(lambda tracker: tracker.image(name, path, images_seen), written)

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Hands the checkpoint to every tracker."""
        self._each(lambda tracker: tracker.checkpoint(path, images_seen))

    def alert(self, title: str, text: str) -> None:
        """Hands the warning to every tracker."""
        self._each(lambda tracker: tracker.alert(title, text))

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Closes every tracker, once the queue is empty."""
        self._each(lambda tracker: tracker.close(status, warnings))
        self._queue.shutdown(wait=True)

    def _each(self, action: Callable[[Tracker], None], written: Future[bool] | None = None) -> None:
        """Lets every tracker do something: at once, or in the queue, there after what it needs is `written`."""
        for tracker in self.trackers:
            self._guard(tracker, action)
        if self.queued:
            self._queue.submit(self._in_queue, action, written)

    def _in_queue(self, action: Callable[[Tracker], None], written: Future[bool] | None) -> None:
        if written is None or written.result():
            for tracker in self.queued:
                self._guard(tracker, action)

    def _guard(self, tracker: Tracker, action: Callable[[Tracker], None]) -> None:
        try:
            action(tracker)
        except Exception as error:  # a full disk, a network, a service: none is worth the training
            if id(tracker) not in self._complained:
                self._complained.add(id(tracker))
                log.warning("%s cannot write (%s); training goes on without it", type(tracker).__name__, error)


class JsonlTracker:
    """metrics.jsonl: one JSON object a line, each row once, in order, however often the run was resumed."""

    def __init__(self, path: Path, images_seen: int) -> None:
        """Opens the file to go on from a checkpoint at `images_seen`: rows after it will come again and are dropped."""
        rows, last = _rows_up_to(path, images_seen), last_images_seen(path)
        if last > images_seen:
            log.info("the rows of %s from %d up to %d images come again", path, images_seen, last)
        write_text(path, "".join(f"{row}\n" for row in rows))
        self._file: IO[str] = path.open("a", encoding="utf-8")

    def log(self, row: Row) -> None:
        """Appends a line that is on the disk when this returns to the operating system."""
        self._file.write(json.dumps(row) + "\n")
        self._file.flush()

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """Does nothing: pictures are files of their own."""

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Does nothing: rank 0 sends the checkpoints."""

    def alert(self, title: str, text: str) -> None:
        """Does nothing: warnings are in events.jsonl."""

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Closes the file."""
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()


def _rows_up_to(path: Path, images_seen: int) -> list[str]:
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            keep = json.loads(line)["images_seen"] <= images_seen
        except (ValueError, KeyError, TypeError):  # the half of a line that a crash left
            keep = False
        if keep:
            rows.append(line)
    return rows


def last_images_seen(path: Path) -> int:
    """`images_seen` of the last whole row of a metrics.jsonl; -1 if there is none."""
    rows = _rows_up_to(path, 2**63)
    return json.loads(rows[-1])["images_seen"] if rows else -1


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
