"""Steps whose inputs a test chooses."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_dist.data.loader import BatchPlan, PixelSource
from dcgan_dist.data.step_images import step_images


@dataclass
class Given:
    """What the next step takes, instead of what follows from its position."""

    pixels: Tensor | None = None
    first_latents: Tensor | None = None
    second_latents: Tensor | None = None

    def set(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> None:
        """Puts them where the step before found its own, as a recorded step needs it."""
        if self.pixels is None or self.first_latents is None or self.second_latents is None:
            self.pixels, self.first_latents, self.second_latents = (
                given.clone() for given in (pixels, first_latents, second_latents)
            )
            return
        self.pixels.copy_(pixels)
        self.first_latents.copy_(first_latents)
        self.second_latents.copy_(second_latents)

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """See `training.engine.Inputs`."""
        assert self.pixels is not None and self.first_latents is not None and self.second_latents is not None
        return self.pixels, self.first_latents, self.second_latents


def batches_from(source: PixelSource, plan: BatchPlan, images_seen: int, device: torch.device) -> Iterator[Tensor]:
    """The batches of a run, one after the other, from a position on."""
    images = step_images(source, plan, device)
    while True:
        assert images.prepare(images_seen, 1) == 1
        yield images.at(torch.tensor(images_seen, device=device))
        images_seen += plan.global_batch
