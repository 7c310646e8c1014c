"""Checkpoints: written whole or not at all, verified before they are trusted, the newest good one found again."""

from __future__ import annotations

import contextlib
import io
import logging
import threading
import time
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.files import atomic_write, sync_file
from dcgan_dist.base.waiting import told_if_long
from dcgan_dist.distributed.world import World
from dcgan_dist.run.retention import Wanted, checkpoint_name, images_in_name, kept, newest_first
from dcgan_dist.run.saved import Saved

NOTHING_MORE = Wanted()
PATIENCE_SECONDS = 10.0

log = logging.getLogger(__name__)


class Checkpointer:
    """The checkpoints of one run folder. Rank 0 touches the files; every rank makes the same calls to load."""

    def __init__(
        self, folder: Path, keep_last: int, keep_every_images: int, world: World, rely_on: Sequence[Path] = ()
    ) -> None:
        """`keep_every_images`: of these milestones the first checkpoint is never deleted; 0 for none.

        `rely_on`: files that a resumed run goes on with; what they hold is on disk before a checkpoint is.
        """
        self.folder = folder
        self.keep_last = keep_last
        self.keep_every_images = keep_every_images
        self.world = world
        self.rely_on = rely_on
        self._writer: threading.Thread | None = None
        self._last_good: tuple[int, float] | None = None  # images seen, when

    def save_in_background(
        self,
        saved: Saved,
        wanted: Wanted = NOTHING_MORE,
        when_saved: Callable[[], None] = lambda: None,
        before: Callable[[], None] = lambda: None,
    ) -> None:
        """Copies the state and writes it while training continues; first waits briefly for the previous write.

        The thread that writes calls `before` first and `when_saved` once the checkpoint is whole. If the write before
        it does not end, this one is left out: a disk that hangs must not stop the training. For `wanted` see `kept`.
        """
        self.wait(PATIENCE_SECONDS)
        if self._writer is not None:
            log.warning(
                "no checkpoint at %d images, the disk is still busy with the one before; %s",
                saved.images_seen,
                self._older(),
            )
            return
        snapshot = _snapshot(saved)

        def write() -> None:
            before()
            if self._write(saved.images_seen, snapshot, wanted):
                when_saved()

        # Not a daemon: a process that ends in peace ends with its checkpoint written.
        self._writer = threading.Thread(target=write, name="checkpoint")
        self._writer.start()

    def wait(self, seconds: float | None = None) -> None:
        """Returns when nothing is being written any more, or `seconds` have passed."""
        if self._writer is not None:
            word = told_if_long(f"{self.folder} to take a checkpoint", None, "the disk is slow, or gone")
            with word if seconds is None else contextlib.nullcontext():
                self._writer.join(seconds)
            if not self._writer.is_alive():
                self._writer = None

    def save(self, saved: Saved, wanted: Wanted = NOTHING_MORE) -> bool:
        """Writes a checkpoint named by its `images_seen`, then deletes what need not be kept.

        Returns False, with a warning, if it could not be written; older checkpoints are then untouched.
        """
        return self._write(saved.images_seen, _snapshot(saved), wanted)

    def _write(self, images_seen: int, contents: dict[str, Any], wanted: Wanted) -> bool:
        """Writes a state that is already in host memory; see `save`."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            for path in filter(Path.exists, self.rely_on):
                sync_file(path)
            with atomic_write(self.path(images_seen)) as file:
                torch.save(contents, file)
        except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
            log.warning("could not save a checkpoint at %d images (%s); %s", images_seen, error, self._older())
            return False
        self._last_good = images_seen, time.monotonic()
        self._delete_old(images_seen, wanted)
        return True

    def _older(self) -> str:
        if self._last_good is None:
            return "training goes on; none was saved since the start"
        images_seen, when = self._last_good
        minutes = (time.monotonic() - when) / 60
        return f"training goes on; the last good one has {images_seen} images and is {minutes:.1f} minutes old"

    def _delete_old(self, images_seen: int, wanted: Wanted) -> None:
        # What is ahead of the run is damaged and was passed over; it must not count among those that are kept.
        own = [images for images in self.saved() if images <= images_seen]
        for old in set(own) - kept(own, self.keep_last, self.keep_every_images, wanted):
            with contextlib.suppress(OSError):  # a file that cannot be deleted is no reason to stop
                self.path(old).unlink()

    @property
    def last_saved(self) -> int | None:
        """`images_seen` of the last checkpoint that this process has written whole; None before the first."""
        return self._last_good[0] if self._last_good else None

    def path(self, images_seen: int) -> Path:
        """Path of the checkpoint at `images_seen`, whether it exists or not."""
        return self.folder / checkpoint_name(images_seen)

    def go_back_to(self, images_seen: int, watch: dict[str, Any]) -> None:
        """Makes the checkpoint at `images_seen` the newest one, with `watch` in place of what it holds. For rank 0.

        Raises UserError if it is damaged, OSError if the disk does not let go of the newer ones.
        """
        saved = load(read_verified(self.path(images_seen)))
        for newer in newest_first(self.folder):
            if images_in_name(newer) > images_seen:
                newer.unlink()
        with atomic_write(self.path(images_seen)) as file:
            torch.save(replace(saved, watch=watch).contents(), file)

    def saved(self) -> list[int]:
        """Images seen of all checkpoints in the folder, the newest first."""
        return [images_in_name(path) for path in newest_first(self.folder)]

    def newest_images_seen(self) -> int | None:
        """`images_seen` of the newest checkpoint, damaged or not, or None; the same on every rank."""
        files = newest_first(self.folder) if self.world.is_main else []
        return self.world.broadcast_object(images_in_name(files[0]) if files else None)

    def load_newest(self) -> Saved | None:
        """The newest checkpoint that is whole, the same on every rank; None if there is none at all.

        A damaged one is named and passed over. Raises UserError if all are damaged.
        """
        content, problem = None, None
        if self.world.is_main:
            content, problem = self._read_newest()
        problem = self.world.broadcast_object(problem)
        if problem:
            raise UserError(problem)
        return self._on_every_rank(content)

    def load(self, path: Path) -> Saved:
        """Loads one particular checkpoint, the same on every rank. Raises UserError if it is damaged."""
        checkpoint = self._on_every_rank(self.world.on_main(read_verified, path))
        assert checkpoint is not None
        return checkpoint

    def _read_newest(self) -> tuple[bytes | None, str | None]:
        damaged = []
        for path in newest_first(self.folder):
            try:
                return read_verified(path), None
            except UserError as error:
                log.warning("%s; trying the one before it", error)
                damaged.append(path.name)
        if damaged:
            return None, (
                f"{self.folder}: every checkpoint is damaged ({', '.join(damaged)}); put back a good copy, "
                "or delete them to start from the beginning"
            )
        return None, None

    def _on_every_rank(self, content: bytes | None) -> Saved | None:
        content = self.world.broadcast_object(content)
        return None if content is None else load(content)


def load(content: bytes) -> Saved:
    """A checkpoint from its bytes. Raises ValueError if it is none of ours, and whatever torch does for other bytes."""
    return Saved.from_contents(torch.load(io.BytesIO(content), map_location="cpu", weights_only=True))


def _snapshot(saved: Saved) -> dict[str, Any]:
    """Copies a state to host memory; synchronises with the device once, not once per tensor."""
    copy = _copied(saved.contents())
    if torch.cuda.is_available():
        torch.cuda.current_stream().synchronize()
    return copy


def _copied(value: Any) -> Any:
    if isinstance(value, Tensor):
        # Pinned memory takes what a GPU sends while the host goes on.
        host = torch.empty_like(value, device="cpu", requires_grad=False, pin_memory=value.is_cuda)
        return host.copy_(value.detach(), non_blocking=True)
    if isinstance(value, dict):
        return {key: _copied(item) for key, item in value.items()}
    return [_copied(item) for item in value] if isinstance(value, list) else value


def read_verified(path: Path) -> bytes:
    """The bytes of a checkpoint, after its checksums and its contents were looked at.

    torch.load alone does not notice a flipped bit; the zip archive inside has a CRC for every tensor. Raises UserError.
    """
    return _verified(path)[0]


def _verified(path: Path) -> tuple[bytes, Saved]:
    try:
        content = path.read_bytes()
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if (member := archive.testzip()) is not None:
                raise UserError(f"{path}: damaged checkpoint (checksum of {member} does not match)")
        loaded = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # zipfile, pickle and torch raise all kinds of things for damaged bytes
        raise UserError(f"{path}: damaged checkpoint ({type(error).__name__}: {in_one_line(error, 120)})") from None
    try:
        return content, Saved.from_contents(loaded)
    except ValueError as problem:
        raise UserError(f"{path}: {problem}") from None
