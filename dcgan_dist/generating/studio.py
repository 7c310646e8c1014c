"""What every kind of picture is made with: the trained networks, the ranks, and the images they were trained on."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import pad

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import is_url
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.data.loader import Data, open_data
from dcgan_dist.distributed.workforce import CHUNK, Workforce
from dcgan_dist.distributed.world import World
from dcgan_dist.generating.features import discriminator_features
from dcgan_dist.generating.latents import LatentsAt
from dcgan_dist.run.trained import Trained


@dataclass(frozen=True)
class Studio:
    """The networks of a checkpoint and the ranks that draw with them. Every rank makes the same calls."""

    trained: Trained
    workforce: Workforce

    @property
    def world(self) -> World:
        """The ranks."""
        return self.workforce.world

    @property
    def latent_size(self) -> int:
        """Columns of a latent before the conditions, if there are any."""
        return self.trained.config.model.latent_size

    @property
    def image_size(self) -> int:
        """Height and width of the images in pixels."""
        return self.trained.config.data.image_size

    def drawn(self, latents: LatentsAt, count: int, what: str = "drawing") -> Iterator[Tensor]:
        """The first `count` latents as images, in order: portions uint8 [n, 3, size, size] on every rank's device."""
        return self._each(count, what, lambda first: self._draw(latents, first))

    def all_drawn(self, latents: LatentsAt, count: int) -> Tensor:
        """Draws the first `count` latents as one tensor on the CPU, for as many images as fit into memory."""
        return torch.cat([portion.cpu() for portion in self.drawn(latents, count)])

    def drawn_features(self, latents: LatentsAt, count: int) -> Tensor:
        """Discriminator features of the first `count` drawn images: float32 [count, features] on the CPU."""
        network = self.trained.discriminator
        portions = self._each(
            count, "judging", lambda first: discriminator_features(network, self._draw(latents, first))
        )
        return torch.cat([portion.cpu() for portion in portions])

    def real(self, data: Data, count: int, compute: Callable[[Tensor], Tensor], what: str) -> Iterator[Tensor]:
        """`compute` of the first `count` images of the shards, in their order: portions [n, ...] on every rank.

        `compute` gets uint8 [CHUNK, 3, size, size] on the device and returns [CHUNK, ...]; the last chunk is filled up
        with black images, whose results are dropped.
        """
        starts = self.workforce.chunk_starts(count)
        pixels = data.decode(range(start, min(start + CHUNK, count)) for start in starts)
        whole = (pad(part, (0, 0, 0, 0, 0, 0, 0, CHUNK - len(part))).permute(0, 3, 1, 2) for part in pixels)
        with progress_bar(what, count, visible=self.world.is_main) as advance:
            for portion in self.workforce.in_order(count, whole, compute):
                advance(len(portion))
                yield portion

    def real_features(self, data: Data, count: int) -> Tensor:
        """Discriminator features of the first `count` training images: float32 [count, features] on the CPU."""
        network = self.trained.discriminator
        portions = self.real(data, count, lambda pixels: discriminator_features(network, pixels), "looking")
        return torch.cat([portion.cpu() for portion in portions])

    def training_images(self, shards: Path | str | None, cores: int) -> Data:
        """The shards that the checkpoint's configuration names, or `shards` in their place, checked in full.

        Raises UserError, on every rank, if they are not there or damaged.
        """
        config = self.trained.config
        if shards is None and not is_url(config.data.shards) and not Path(config.data.shards).is_dir():
            raise UserError(
                f"{config.data.shards}: the images it was trained on are not there; say where: --shards DIR"
            )
        config = replace(config, data=replace(config.data, shards=str(shards or config.data.shards), decoder="auto"))
        data = open_data(config.data, self.world, cores)
        # Each node may have a copy of its own.
        self.world.together(data.shards.verify, self.world.local_rank, self.world.local_size)
        if self.world.is_main and data.manifest.fingerprint != self.trained.saved.dataset_fingerprint:
            print(f"note: {config.data.shards} does not hold the images this checkpoint was trained on")
        return data

    def _draw(self, latents: LatentsAt, first: int) -> Tensor:
        return self.trained.draw(latents(first, CHUNK))

    def _each(self, count: int, what: str, compute: Callable[[int], Tensor]) -> Iterator[Tensor]:
        starts = self.workforce.chunk_starts(count)
        with progress_bar(what, count, visible=self.world.is_main) as advance:
            for portion in self.workforce.in_order(count, starts, compute):
                advance(len(portion))
                yield portion
