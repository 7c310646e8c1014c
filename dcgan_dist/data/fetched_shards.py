"""Images of a data set behind a URL: gathered ahead of the decoder by threads, in the order of need.

A batch takes its images from nearly every tar, since they come in random order. So images are gathered for many
batches at a time (a window), and every tar that a window needs is fetched at most once for it. If all tars fit into the
cache, they stay mapped into memory, as local shards are; if not, the images are copied out of a tar, which may then be
thrown out for another.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import IO
from weakref import WeakSet

import numpy as np

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.urls import Remote, in_threads
from dcgan_dist.config import DataConfig
from dcgan_dist.data.mapped_shards import allow_open_files, map_file, read_places, sample_key
from dcgan_dist.data.shard_cache import NOW, SOON, ShardCache, shard_folder
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.workforce import free_host_memory

BATCHES_KEPT = 16  # after the decoder has asked for them: it reads ahead, and a GPU's copies later still
WINDOW_BYTES = 256 << 20  # compressed images in a window; more of them where tars are fetched again for each
SHARE_OF_MEMORY = 16  # such a window may take one part in so many; up to three are held
FEWEST_BATCHES = 8  # with fewer no step begins: the decoder reads ahead by half as many

Batch = Sequence[int]


class Closed(Exception):
    """Nobody wants these images any more."""


class FetchedShards:
    """A data set behind a URL as a list of images; the counterpart of `MappedShards`.

    Raises UserError where it cannot be read or `data.cache_limit_gib` is too small, and OSError as the disk does.
    """

    def __init__(
        self,
        config: DataConfig,
        manifest: Manifest,
        local_size: int,
        patience_seconds: float,
        while_waiting: Callable[[], None],
    ) -> None:
        """`while_waiting` is called again and again by a decoder that has to wait; it may raise."""
        remote = Remote(config.shards, patience_seconds)
        limit = None if config.cache_limit_gib is None else int(config.cache_limit_gib * 2**30)
        self.manifest = manifest
        self.folder = shard_folder(config, manifest)
        self.cache = ShardCache(remote, manifest, self.folder, limit)
        self.while_waiting = while_waiting
        self.places = read_places(self.folder, manifest)
        self.window_images = self._window_images(local_size)
        self._mapped: dict[int, np.ndarray] = {}
        self._arriving: WeakSet[ArrivingImages] = WeakSet()
        allow_open_files(len(manifest.shards))

    def __len__(self) -> int:
        return len(self.places)

    @property
    def image_bytes(self) -> np.ndarray:
        """Size of each image's file: int64 [samples]."""
        return self.places[:, 2]

    def name(self, sample: int) -> str:
        """Where a sample lies, for a message: tar and key."""
        number, offset, _ = self.places[sample]
        shard = self.manifest.shards[number]
        return f"{self.cache.remote.url}/{shard.file}, image {sample_key(self.folder, shard, offset)}"

    def verify(self, part: int, parts: int, before_each: Callable[[], None] = lambda: None) -> None:
        """Throws damaged tars out of the cache, each process its part; what is fetched later is checked then."""
        for number in range(part, len(self.manifest.shards), parts):
            before_each()
            self.cache.throw_out_if_damaged(number)

    def tar(self, number: int, while_waiting: Callable[[], None]) -> np.ndarray:
        """All bytes of a tar, fetched if need be: uint8 [bytes]. What is wanted NOW stays until it is read."""
        while (content := self._mapped.get(number)) is None:
            try:
                content = map_file(self.cache.path(number, while_waiting))
            except FileNotFoundError:  # thrown out in that moment
                continue
            if self.cache.is_limited:
                return content
            self._mapped[number] = content
        return content

    def open_tar(self, number: int) -> IO[bytes]:
        """A tar for reading."""
        while True:
            with contextlib.suppress(FileNotFoundError):  # thrown out in that moment
                return self.cache.path(number).open("rb")

    def arriving(self, batches: Iterable[Batch]) -> ArrivingImages:
        """The images of these batches, which are gathered from now on."""
        images = ArrivingImages(self, batches)
        self._arriving.add(images)
        return images

    def batches_ready(self) -> float:
        """How many batches the decoders can take without waiting; infinite if nothing more is asked for."""
        return min((images.batches_ready() for images in self._arriving), default=math.inf)

    def _window_images(self, local_size: int) -> int:
        """How many images a window may hold, by their mean size; an epoch is enough."""
        limited = max(WINDOW_BYTES, free_host_memory() // SHARE_OF_MEMORY // local_size)
        mean = sum(shard.bytes for shard in self.manifest.shards) / len(self)
        return max(1, min(len(self), int((limited if self.cache.is_limited else WINDOW_BYTES) / mean)))

    def failure(self) -> str | None:
        """Why no more images will come; None as long as they do."""
        problems = (images.failure for images in self._arriving)
        return next((in_one_line(problem) for problem in problems if problem and not isinstance(problem, Closed)), None)


class ArrivingImages:
    """The images of certain batches, as a decoder reads them: first it takes a batch, then its images."""

    def __init__(self, shards: FetchedShards, batches: Iterable[Batch]) -> None:
        self.folder, self.name = shards.folder, shards.name
        self.failure: BaseException | None = None
        self._shards = shards
        self._ready: deque[tuple[Batch, dict[int, np.ndarray]]] = deque()
        self._taken: deque[dict[int, np.ndarray]] = deque(maxlen=BATCHES_KEPT)
        self._change = threading.Condition()
        self._closed = self._complete = self._is_full = False
        threading.Thread(target=self._gather, args=(iter(batches),), name="gather", daemon=True).start()

    def jpeg(self, sample: int) -> np.ndarray:
        """The bytes of an image of one of the batches taken last: uint8 [size]."""
        return next(images[sample] for images in reversed(self._taken) if sample in images)

    def batches(self) -> Iterator[Batch]:
        """The batches, each as soon as its images are there. Raises what kept them from coming."""
        while True:
            with self._change:
                while not (self._ready or self._complete or self.failure):
                    self._change.wait(0.2)
                    self._shards.while_waiting()
                if not self._ready:
                    if self.failure:
                        raise self.failure
                    return
                batch, images = self._ready.popleft()
                self._change.notify_all()
            self._taken.append(images)
            yield batch

    def batches_ready(self) -> float:
        """How many batches can be taken without waiting; infinite if no more will come."""
        if self._complete or self._closed:
            return math.inf
        return max(len(self._ready), FEWEST_BATCHES) if self._is_full and self._ready else len(self._ready)

    def close(self) -> None:
        """Gathers no more."""
        with self._change:
            self._closed = True
            self._change.notify_all()

    # --- in the thread ------------------------------------------------------------------------------------------------

    def _gather(self, batches: Iterator[Batch]) -> None:
        cache = self._shards.cache
        try:
            for window, following in itertools.pairwise(itertools.chain(self._windows(batches), [None])):
                assert window
                soon = self._tars_of(following) if following else []
                cache.want(soon, SOON)
                try:
                    self._deliver(window, self._images_of(window))
                finally:
                    cache.want(soon, SOON, -1)
        except BaseException as error:
            self.failure = self.failure or error
        with self._change:
            self._complete = self.failure is None
            self._change.notify_all()

    def _windows(self, batches: Iterator[Batch]) -> Iterator[list[Batch]]:
        """Batches in growing portions: the first is there soon, the last need few fetches an image."""
        count = 1
        while window := list(itertools.islice(batches, count)):
            yield window
            count = max(1, min(4 * count, self._shards.window_images // len(window[0])))

    def _deliver(self, window: list[Batch], images: dict[int, np.ndarray]) -> None:
        """Hands out a window's images as soon as the decoder has come far enough."""
        with self._change:
            self._is_full = True
            self._change.wait_for(lambda: self._closed or len(self._ready) <= len(window))
            self._is_full = False
            self._ready.extend((batch, {sample: images[sample] for sample in batch}) for batch in window)
            self._change.notify_all()
        self._assert_open()

    def _tars_of(self, window: list[Batch]) -> list[int]:
        """The numbers of the tars that a window needs, in the order of need."""
        return list(dict.fromkeys(self._shards.places[np.concatenate(window), 0].tolist()))

    def _images_of(self, window: list[Batch]) -> dict[int, np.ndarray]:
        """Every image of a window by its number."""
        samples, images = np.unique(np.concatenate(window)), {}
        places, cache = self._shards.places[samples], self._shards.cache

        def take(number: int) -> None:
            try:
                content = self._shards.tar(number, self._assert_open)
            except BaseException as error:
                self.failure = self.failure or error  # so that the other threads wait no more
                raise
            first, end = np.searchsorted(places[:, 0], [number, number + 1])  # samples lie in the order of the tars
            for sample, (_, offset, size) in zip(samples[first:end].tolist(), places[first:end].tolist(), strict=True):
                part = content[offset : offset + size]
                images[sample] = part.copy() if cache.is_limited else part
            wanted.discard(number)
            cache.want([number], NOW, -1)

        numbers = self._tars_of(window)
        wanted = set(numbers)
        cache.want(numbers, NOW)
        try:
            in_threads(take, numbers)
        finally:
            cache.want(list(wanted), NOW, -1)
        return images

    def _assert_open(self) -> None:
        if self._closed or self.failure:
            raise Closed
