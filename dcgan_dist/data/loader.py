"""Endless batches on the device, from any position of the run: out of a cache of pixels, or decoded as they are needed.

Both come down to one kind of function, a `PixelSource`: batches of sample numbers go in, their images come out.
"""

from __future__ import annotations

import importlib.util
import itertools
import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import PATIENCE_SECONDS, is_url
from dcgan_dist.base.waiting import Advance
from dcgan_dist.config import DataConfig
from dcgan_dist.data.crop import needed_size
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.fetched_shards import FetchedShards
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import flips, sample_ids, share
from dcgan_dist.data.shard_format import Manifest, read_manifest
from dcgan_dist.data.supply import Supply
from dcgan_dist.distributed.workforce import free_host_memory
from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)

Shards = MappedShards | FetchedShards
PixelSource = Callable[[Iterable[Sequence[int]]], Iterator[Tensor]]
"""Batches of sample numbers to images, uint8 [n, size, size, 3] on the device."""

CACHE_FILL_BATCH = 256
FETCH_TIMEOUT_SECONDS = 3600.0  # ranks may have to wait for each other so long until the first step of a URL's images
_BYTES_LEFT_FREE = 2 << 30  # for the networks and everything else


@dataclass(frozen=True)
class BatchPlan:
    """Which images this rank takes at each step."""

    seed: int
    num_samples: int
    global_batch: int
    first: int
    count: int
    flip: bool

    @classmethod
    def of(cls, config: DataConfig, seed: int, num_samples: int, global_batch: int, world: World) -> BatchPlan:
        """The plan of one rank of `world`."""
        first, count = share(global_batch, world.rank, world.size)
        return cls(seed, num_samples, global_batch, first, count, config.flip)

    def ids(self, images_seen: int) -> list[int]:
        """Numbers of the samples this rank takes in the step that starts at `images_seen`."""
        return sample_ids(self.seed, self.num_samples, images_seen + self.first, self.count).tolist()

    def flips(self, images_seen: int) -> Tensor:
        """Returns which of the step's images are mirrored: bool [count]."""
        return flips(self.seed, images_seen + self.first, self.count) & self.flip


def endless_batches(source: PixelSource, plan: BatchPlan, images_seen: int) -> Iterator[Tensor]:
    """This rank's batches from position `images_seen` on: uint8 [count, 3, size, size], channels last in memory."""
    positions = itertools.count(images_seen, plan.global_batch)
    return _flipped(source(plan.ids(position) for position in positions), plan, images_seen)


def _flipped(steps: Iterator[Tensor], plan: BatchPlan, images_seen: int) -> Iterator[Tensor]:
    for position, pixels in zip(itertools.count(images_seen, plan.global_batch), steps, strict=False):
        if plan.flip:
            pixels = mirror(pixels, plan.flips(position))
        yield pixels.permute(0, 3, 1, 2)


def mirror(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Images [n, height, width, 3] with left and right exchanged where `chosen` [n] is true."""
    chosen = chosen.to(pixels.device, non_blocking=True)
    return torch.where(chosen[:, None, None, None], pixels.flip(2), pixels)


def open_decoder(config: DataConfig, shards: Shards, world: World, cores: int) -> PixelSource:
    """The decoder the configuration asks for, on this rank's device.

    Raises UserError if DALI is asked for and absent, or images are too small for the crop.
    """
    _check_crop(config, shards.manifest)
    settings = {"size": config.image_size, "crop": config.crop, "device": world.device, "threads": cores}
    decode = decode_with_dali if decoder_name(config) == "dali" else decode_with_pillow
    if isinstance(shards, FetchedShards):
        return partial(_decode_arriving, shards, partial(decode, **settings))
    return partial(decode, shards, **settings)


def _decode_arriving(
    shards: FetchedShards, decode: Callable[..., Iterator[Tensor]], batches: Iterable[Sequence[int]]
) -> Iterator[Tensor]:
    """Begins at once to gather the batches' images, and decodes each when it is asked for and there."""
    images = shards.arriving(batches)

    def decoded() -> Iterator[Tensor]:
        try:
            yield from decode(images, images.batches())
        finally:
            images.close()

    return decoded()


def decoder_name(config: DataConfig) -> Literal["dali", "pillow"]:
    """Returns the name of the decoder used on this machine. Raises UserError if DALI is asked for and absent."""
    installed = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    if config.decoder == "dali" and not installed:
        raise UserError(
            "data.decoder = dali: NVIDIA DALI is not installed; pip install nvidia-dali-cuda130, or use auto"
        )
    return "pillow" if config.decoder == "pillow" or not installed else "dali"


def open_source(config: DataConfig, shards: Shards, decode: PixelSource, world: World, advance: Advance) -> PixelSource:
    """The cache, filled by all ranks together, if it is asked for or fits; otherwise the decoder itself.

    `advance` is told of the images this rank has decoded. Raises UserError if the cache is wanted and does not fit.
    """
    if config.loader == "stream":
        return decode
    needed, free = len(shards) * config.image_size**2 * 3, _free_bytes(world)
    fits = not world.any(needed > free)
    if config.loader == "cache" and not fits:
        raise UserError(
            f"data.loader = cache: {len(shards)} images of {config.image_size} pixels need {needed / 2**30:.1f} GiB "
            f"a rank and {max(free, 0) / 2**30:.1f} are free; use --data.loader stream, or fewer ranks a node"
        )
    if not fits:
        log.info("%d images do not fit into the memory that is free; each batch is decoded when it is due", len(shards))
        return decode
    cache = fill_cache(decode, len(shards), config.image_size, world, advance)
    return partial(_from_cache, cache)


def fill_cache(decode: PixelSource, num_samples: int, size: int, world: World, advance: Advance) -> Tensor:
    """All images on every rank's device, uint8 [num_samples, size, size, 3]; each rank decodes a part in file order."""
    cache = torch.empty(num_samples, size, size, 3, dtype=torch.uint8, device=world.device)
    parts = [share(num_samples, rank, world.size) for rank in range(world.size)]
    first, count = parts[world.rank]
    world.together(_decode_into, cache[first : first + count], decode(_chunks(first, count)), advance)
    with world.waiting():
        for rank, (start, length) in enumerate(parts):
            world.broadcast(cache[start : start + length], source=rank)
    return cache


def _decode_into(part: Tensor, batches: Iterable[Tensor], advance: Advance) -> None:
    done = 0
    for pixels in batches:
        part[done : done + len(pixels)] = pixels
        done += len(pixels)
        advance(len(pixels))


def _from_cache(cache: Tensor, batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
    # Rows of 64-bit words: copied several times faster than bytes, and counted below 2^31 for all of CelebA.
    rows = cache.view(len(cache), -1).view(torch.int64)
    for batch in batches:
        ids = torch.tensor(batch).to(cache.device, non_blocking=True)
        yield rows.index_select(0, ids).view(torch.uint8).view(-1, *cache.shape[1:])


def _chunks(first: int, count: int) -> Iterator[range]:
    for start in range(first, first + count, CACHE_FILL_BATCH):
        yield range(start, min(start + CACHE_FILL_BATCH, first + count))


def _check_crop(config: DataConfig, manifest: Manifest) -> None:
    needed, smallest = needed_size(config.crop), manifest.smallest_image
    if smallest[0] < needed[0] or smallest[1] < needed[1]:
        raise UserError(
            f"data.crop = {config.crop}: needs images of at least {needed[0]}x{needed[1]} (height x width), "
            f"the smallest in {config.shards} is {smallest[0]}x{smallest[1]}; use --data.crop short_side"
        )


def _free_bytes(world: World) -> int:
    if world.device.type == "cuda":
        return torch.cuda.mem_get_info(world.device)[0] - _BYTES_LEFT_FREE
    return (free_host_memory() - _BYTES_LEFT_FREE) // world.local_size


@dataclass(frozen=True)
class Data:
    """An opened and checked shard folder."""

    manifest: Manifest
    shards: Shards
    decode: PixelSource

    def supply(self, source: PixelSource, plan: BatchPlan, images_seen: int, world: World) -> Supply:
        """This rank's batches from `images_seen` on, out of `source`: the cache, or this decoder."""
        arriving = self.shards if source is self.decode and isinstance(self.shards, FetchedShards) else None
        return Supply(endless_batches(source, plan, images_seen), arriving, world)


def open_data(
    config: DataConfig,
    world: World,
    cores: int,
    patience_seconds: float = PATIENCE_SECONDS,
    while_waiting: Callable[[], None] = lambda: None,
) -> Data:
    """The shards and their decoder. Raises UserError, on every rank, if one cannot use them.

    A URL's server may be silent for `patience_seconds`; `while_waiting` is called meanwhile and may raise.
    """

    def open_here() -> Data:
        manifest = read_manifest(config.shards)
        shards = open_shards(config, manifest, world, patience_seconds, while_waiting)
        return Data(manifest, shards, open_decoder(config, shards, world, cores))

    return world.together(open_here)


def open_shards(
    config: DataConfig,
    manifest: Manifest,
    world: World,
    patience_seconds: float = PATIENCE_SECONDS,
    while_waiting: Callable[[], None] = lambda: None,
) -> Shards:
    """The shards in their folder, or behind their URL; see `open_data`. Raises UserError, and OSError."""
    if not is_url(config.shards):
        return MappedShards(Path(config.shards), manifest)
    if world.has_peers:
        world.set_timeout(FETCH_TIMEOUT_SECONDS)
    return FetchedShards(config, manifest, world.local_size, patience_seconds, while_waiting)
