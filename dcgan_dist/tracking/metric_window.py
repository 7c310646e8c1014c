"""Means over the steps since the last row of figures, kept on the device so that no step waits for them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dcgan_dist.distributed.world import World


class MetricWindow:
    """Sums of a few figures a step, weighted by images, and the number of images."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.sums = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=device)

    def add(self, figures: Sequence[Tensor], images: int) -> None:
        """Takes in one step: each figure a scalar, the mean over `images` images of this rank."""
        self.sums[:-1].add_(torch.stack(list(figures)), alpha=images)
        self.sums[-1].add_(images)

    def sum_of(self, name: str) -> Tensor:
        """What this rank has summed up of one figure, on the device."""
        return self.sums[self.names.index(name)]

    def collect(self, world: World) -> None:
        """Moves what all ranks have summed up to rank 0."""
        world.sum(self.sums)
        if not world.is_main:
            self.sums.zero_()

    def take_means(self, world: World) -> dict[str, float]:
        """The means over all ranks since the last call, by name; the window is empty afterwards."""
        *sums, images = world.sum(self.sums).tolist()
        self.sums.zero_()
        return {name: total / images for name, total in zip(self.names, sums, strict=True)}
