"""A folder of shards, opened: what is in it, its bytes, and what decodes them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from dcgan_dist.config import DataConfig
from dcgan_dist.data.loader import PixelSource, open_decoder
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import Manifest, read_manifest
from dcgan_dist.distributed.world import World


@dataclass(frozen=True)
class Data:
    """An opened and checked shard folder."""

    manifest: Manifest
    shards: MappedShards
    decode: PixelSource


def open_data(config: DataConfig, world: World, cores: int) -> Data:
    """The shards and their decoder. Raises UserError, on every rank, if one cannot use them."""

    def open_here() -> Data:
        manifest = read_manifest(Path(config.shards))
        shards = MappedShards(Path(config.shards), manifest)
        return Data(manifest, shards, open_decoder(config, shards, world, cores))

    return world.do_together(open_here)
