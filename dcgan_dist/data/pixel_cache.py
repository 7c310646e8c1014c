"""All images of the shards, decoded once: in every rank's memory, and in a file that the next start reads.

The ranks of a node share one file. On a CPU they map it, so that its pages are in memory once; on a GPU each copies it
to its device. The bits are those of the decoder in any case.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import mmap
import os
import shlex
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dcgan_dist.base.waiting import Advance
from dcgan_dist.data.pixel_file import (
    HEADER_BYTES,
    PIECE_BYTES,
    DamagedPixels,
    PixelSet,
    check_pixel_file,
    list_pixel_files,
    write_pixel_file,
)
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)

PixelSource = Callable[[Iterable[Sequence[int]]], Iterator[Tensor]]
"""Batches of sample numbers to images, uint8 [n, size, size, 3] on the device."""

CACHE_FILL_BATCH = 256

# --- in memory --------------------------------------------------------------------------------------------------------


def fill_cache(decode: PixelSource, num_samples: int, size: int, world: World, advance: Advance) -> Tensor:
    """All images on every rank's device, uint8 [num_samples, size, size, 3]; each rank decodes a part in file order."""
    cache = _empty(num_samples * size**2 * 3, world.device).view(num_samples, size, size, 3)
    parts = [share(num_samples, rank, world.size) for rank in range(world.size)]
    first, count = parts[world.rank]
    world.together(_decode_into, cache[first : first + count], decode(_chunks(first, count)), advance)
    with world.waiting():
        for rank, (start, length) in enumerate(parts):
            world.broadcast(cache[start : start + length], source=rank)
    return cache


def _empty(count: int, device: torch.device) -> Tensor:
    """Bytes that on a CPU go back to the system with the tensor: what the C library frees it keeps (`workforce`)."""
    if device.type != "cpu":
        return torch.empty(count, dtype=torch.uint8, device=device)
    return torch.frombuffer(mmap.mmap(-1, count, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS), dtype=torch.uint8)


def _decode_into(part: Tensor, batches: Iterable[Tensor], advance: Advance) -> None:
    done = 0
    for pixels in batches:
        part[done : done + len(pixels)] = pixels
        done += len(pixels)
        advance(len(pixels))


def _chunks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, CACHE_FILL_BATCH):
        yield range(start, min(start + CACHE_FILL_BATCH, first + count))


@dataclass(frozen=True)
class CachedPixels:
    """A `PixelSource` that has all images on the device."""

    pixels: Tensor
    """uint8 [num_samples, size, size, 3]."""

    def of(self, ids: Tensor) -> Tensor:
        """The images with these numbers, int64 [n] on the same device: uint8 [n, size, size, 3]."""
        # Rows of 64-bit words: copied several times faster than bytes, and counted below 2^31 for all of CelebA.
        rows = self.pixels.view(len(self.pixels), -1).view(torch.int64)
        return rows.index_select(0, ids).view(torch.uint8).view(-1, *self.pixels.shape[1:])

    def __call__(self, batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        """The images of each batch."""
        for batch in batches:
            yield self.of(torch.tensor(batch).to(self.pixels.device, non_blocking=True))


# --- in a file --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class KeptPixels:
    """The file of a run's pixels, and what every rank of its node does with it together with all others."""

    folder: Path
    pixels: PixelSet
    world: World
    advance: Advance
    """Called between two pieces, with 0; may raise UserError."""

    @property
    def path(self) -> Path:
        """The file, which may not be there."""
        return self.folder / self.pixels.file_name

    def problems(self) -> list[Exception | None]:
        """What each rank finds wrong with its node's file: FileNotFoundError, DamagedPixels or another OSError.

        The ranks of a node read a part each, and every one reads it before it is used.
        """
        world = self.world
        threads = max(1, len(os.sched_getaffinity(0)) // world.local_size)
        work = check_pixel_file(self.path, self.pixels, world.local_rank, world.local_size, threads)
        return world.gather_objects(self._in_steps(work))

    def name_others(self) -> None:
        """A line for the files of other pixels in the folder: they are large, and nothing removes them by itself."""
        others = [found for found in list_pixel_files(self.folder) if found.path != self.path]
        if others := [found for found in others if not found.is_being_written]:
            log.info(
                "%s has %d more file(s), of other shards, crops, sizes or decoders, or unfinished: %.2f GiB; "
                "to remove them: python -m data_prep.pixels %s --remove %s",
                self.folder,
                len(others),
                sum(found.bytes for found in others) / 2**30,
                shlex.quote(str(self.folder)),
                " ".join(found.path.name for found in others),
            )

    def of_node(self, problems: list[Exception | None]) -> list[Exception | None]:
        """Those of this rank's node."""
        first = self.world.rank - self.world.local_rank
        return problems[first : first + self.world.local_size]

    def load(self) -> Tensor:
        """All images on this rank's device, as `fill_cache` gives them. For a file without problems."""
        mapped = self._map()
        if self.world.device.type == "cpu":
            return mapped
        cache = torch.empty_like(mapped, device=self.world.device)
        for piece, source in zip(cache.view(-1).split(PIECE_BYTES), mapped.view(-1).split(PIECE_BYTES), strict=True):
            piece.copy_(source)
        return cache

    def _map(self) -> Tensor:
        """The file's pixels; a write to them would copy the page and never reach the file."""
        with self.path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != self.pixels.file_bytes:
                raise OSError(errno.ESTALE, "was changed while it was read", str(self.path))
            content = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        size = self.pixels.size
        flat = torch.frombuffer(content, dtype=torch.uint8, offset=HEADER_BYTES, count=self.pixels.pixel_bytes)
        return flat.view(self.pixels.samples, size, size, 3)

    def keep(self, cache: Tensor, found: list[Exception | None]) -> Tensor:
        """Writes all images into the node's file if `found` are `problems` with it, or none were looked for.

        Returns the images, on a CPU out of the file if it is there. Whatever the disk does, training can go on.
        """
        absent = (FileNotFoundError, NotADirectoryError)
        damaged = [problem for problem in found if problem and not isinstance(problem, absent)]
        if damaged and self.world.is_main:
            log.warning("%s; the images are decoded again and the file is replaced", _in_words(damaged[0]))
        writes = self.world.local_rank == 0 and (not found or any(self.of_node(found)))
        if writes:
            log.info("writing the pixels to %s (%.2f GiB)", self.path, self.pixels.file_bytes / 2**30)
        begin = time.perf_counter()
        pieces = (piece.cpu().numpy().data for piece in cache.view(-1).split(PIECE_BYTES))
        problem = self._in_steps(write_pixel_file(self.path, self.pixels, pieces) if writes else _nothing())
        if isinstance(problem, BlockingIOError):
            log.info("%s: another process is writing it", self.path)
        elif problem is None and writes:
            log.info("pixels kept for the next start, written in %.1f s", time.perf_counter() - begin)
        elif problem is not None:
            log.warning(
                "the pixels are not kept (%s), training goes on from memory; --data.cache_dir names another folder, "
                "and --data.keep_pixels false keeps none",
                _in_words(problem),
            )
        if self.world.device.type == "cpu" and not any(self.of_node(self.problems())):
            with contextlib.suppress(OSError):
                return self.load()
        return cache

    def _in_steps(self, work: Generator[None]) -> Exception | None:
        """Does `work` piece by piece, and returns what went wrong with it.

        After each piece all ranks meet: none waits long for one with a slow disk, and all stop together.
        """
        problems: list[Exception] = []

        def step() -> bool:
            self.advance(0)
            try:
                return next(work, self) is None
            except (OSError, DamagedPixels) as error:
                problems.append(error)
                return False

        with contextlib.closing(work):
            while self.world.any(self.world.together(step)):
                pass
        return problems[0] if problems else None


def _nothing() -> Generator[None]:
    yield from ()


def _in_words(problem: Exception) -> str:
    if isinstance(problem, OSError):
        return f"{problem.filename or 'the file system'}: {problem.strerror or problem}"
    return str(problem)
