"""Images on the device: out of a cache of pixels, or decoded as they are needed.

Both come down to one kind of function, a `PixelSource`: batches of sample numbers go in, their images come out.
"""

from __future__ import annotations

import importlib.util
import logging
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import PIL.features
import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import PATIENCE_SECONDS, is_url
from dcgan_dist.base.waiting import Advance
from dcgan_dist.config import DataConfig
from dcgan_dist.data.crop import needed_size
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.decode_plain import are_plain, decode_plain
from dcgan_dist.data.fetched_shards import FetchedShards
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.pixel_cache import CachedPixels, KeptPixels, PixelSource, fill_cache
from dcgan_dist.data.pixel_file import PixelSet, pixel_folder
from dcgan_dist.data.sample_order import sample_ids, share
from dcgan_dist.data.shard_cache import shard_folder
from dcgan_dist.data.shard_format import Manifest, read_manifest
from dcgan_dist.data.supply import Supply
from dcgan_dist.distributed.workforce import free_host_memory
from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)

Shards = MappedShards | FetchedShards
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


def open_decoder(config: DataConfig, shards: Shards, world: World, cores: int) -> PixelSource:
    """The decoder the configuration asks for, on this rank's device, or none where pixels are stored as training wants.

    Raises UserError if DALI is asked for and absent, or images are too small for the crop.
    """
    _check_crop(config, shards.manifest)
    settings = {"size": config.image_size, "crop": config.crop, "device": world.device, "threads": cores}
    decode = decode_with_dali if decoder_name(config) == "dali" else decode_with_pillow
    if are_plain(shards.manifest, shards.image_bytes, config.image_size, config.crop):
        decode = decode_plain
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


def decoder_version(config: DataConfig, device: torch.device) -> str:
    """Returns what decides which pixels a decoder makes: its name, its version, and the GPU it runs on."""
    if decoder_name(config) == "pillow":
        return f"pillow {PIL.__version__}, libjpeg-turbo {PIL.features.version('libjpeg_turbo')}"
    import nvidia.dali

    where = torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
    return f"dali {nvidia.dali.__version__} on {where}"


def open_source(
    config: DataConfig,
    shards: Shards,
    decode: PixelSource,
    world: World,
    advance: Advance,
    tell: Callable[[str], None] = log.info,
) -> PixelSource:
    """The cache, from the file of pixels or filled by all ranks together, if it is asked for or fits; else the decoder.

    `advance` is told of the images this rank has decoded, and `tell` in words if they were decoded by an earlier run.
    Raises UserError if the cache is wanted and does not fit.
    """
    if config.loader == "stream":
        return decode
    needed, begin = len(shards) * config.image_size**2 * 3, time.perf_counter()
    kept = _kept_pixels(config, shards.manifest, world, advance)
    found = kept.problems() if kept and _fits(needed, _free_bytes(world, copies=1), world) else []
    if kept and found and not any(found):
        source = CachedPixels(world.together(kept.load))
        tell(f"pixels from {kept.path} in {time.perf_counter() - begin:.1f} s")
        return source
    free = _free_bytes(world, copies=world.local_size)
    if not _fits(needed, free, world):
        if config.loader == "auto":
            log.info("%d images do not fit into the free memory; each batch is decoded when it is due", len(shards))
            return decode
        raise UserError(
            f"data.loader = cache: {len(shards)} images of {config.image_size} pixels need {needed / 2**30:.1f} GiB "
            f"a rank and {max(free, 0) / 2**30:.1f} are free; use --data.loader stream, or fewer ranks a node"
        )
    cache = fill_cache(decode, len(shards), config.image_size, world, advance)
    return CachedPixels(kept.keep(cache, found) if kept else cache)


def _kept_pixels(config: DataConfig, manifest: Manifest, world: World, advance: Advance) -> KeptPixels | None:
    """The file in which this run keeps its pixels, if it does; the other files beside it are named in a line."""
    if not config.keep_pixels:
        return None
    decoder = decoder_version(config, world.device)
    if len(set(world.gather_objects(decoder))) > 1:
        log.info("the pixels are not kept: the ranks have different decoders or GPUs")
        return None
    pixels = PixelSet(
        manifest.dataset[:99],
        manifest.split[:99],
        manifest.fingerprint,
        manifest.samples,
        config.image_size,
        config.crop,
        decoder,
    )
    folder = pixel_folder(shard_folder(config, manifest), config.cache_dir)
    kept = KeptPixels(folder, pixels, world, advance)
    if world.is_main:
        kept.name_others()
    return kept


def _fits(needed: int, free: int, world: World) -> bool:
    """Whether the images fit on every rank; the same answer on all of them."""
    return not world.any(needed > free)


def _check_crop(config: DataConfig, manifest: Manifest) -> None:
    needed, smallest = needed_size(config.crop), manifest.smallest_image
    if smallest[0] < needed[0] or smallest[1] < needed[1]:
        raise UserError(
            f"data.crop = {config.crop}: needs images of at least {needed[0]}x{needed[1]} (height x width), "
            f"the smallest in {config.shards} is {smallest[0]}x{smallest[1]}; use --data.crop short_side"
        )


def _free_bytes(world: World, copies: int) -> int:
    """Memory on this rank's device for the images, or on a CPU for one of the node's `copies` of them."""
    if world.device.type == "cuda":
        return torch.cuda.mem_get_info(world.device)[0] - _BYTES_LEFT_FREE
    return (free_host_memory() - _BYTES_LEFT_FREE) // copies


@dataclass(frozen=True)
class Data:
    """An opened and checked shard folder."""

    manifest: Manifest
    shards: Shards
    decode: PixelSource

    def supply(self, source: PixelSource, world: World) -> Supply:
        """Says whether the images of `source`, the cache or this decoder, have arrived."""
        arriving = self.shards if source is self.decode and isinstance(self.shards, FetchedShards) else None
        return Supply(arriving, world)


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
    world.set_timeout(FETCH_TIMEOUT_SECONDS)
    return FetchedShards(config, manifest, world.local_size, patience_seconds, while_waiting)
