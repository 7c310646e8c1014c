"""What each step is given by its position in the run alone: random numbers and learning rates.

Random numbers are functions of the seed and the position, so no rank has another's; rates make a resumed run the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from dcgan_dist.base.counter_random import normal, stream_seed, uniform
from dcgan_dist.config import EmaConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.augment import NUMBERS


def share_of_rate(images_seen: int, total_images: int, decay_last: float) -> float:
    """Returns the factor of the learning rate: 1, falling to 0 over the last `decay_last` of the run."""
    if not decay_last:
        return 1.0
    return min(1.0, max(0.0, (total_images - images_seen) / (decay_last * total_images)))


class Rates:
    """Sets the rates of optimizers before each step, from the position alone, so that a resumed run has the same."""

    def __init__(self, optimizers: Sequence[Optimizer], total_images: int, decay_last: float) -> None:
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups] if decay_last else []
        self._full = [float(group["lr"]) for group in self._groups]
        self._total_images, self._decay_last = total_images, decay_last

    def set(self, images_seen: int) -> None:
        """Sets the learning rates of the next step; a CUDA graph reads them from the device."""
        share = share_of_rate(images_seen, self._total_images, self._decay_last)
        for group, full in zip(self._groups, self._full, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(full * share)
            else:
                group["lr"] = full * share


class Given(NamedTuple):
    """What a step takes besides images, on the device; None where it is not needed."""

    first_latents: Tensor
    """Of the discriminator's update, [count, size]."""
    second_latents: Tensor
    """Of the generator's update."""
    augmentation: Tensor | None
    """The numbers for `augment`, [4, count, NUMBERS], of real and generated images in the discriminator's update, then
    in the generator's."""
    half_life_images: Tensor | None
    """Half-life of the average, a float64 scalar, where it changes."""


@dataclass(frozen=True)
class StepLatents:
    """This rank's latents at each step, and what else follows from the position."""

    plan: BatchPlan
    size: int
    """Of a latent."""
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""
    ema: EmaConfig = field(default_factory=EmaConfig)

    def at(self, images_seen: int) -> Given:
        """Returns the numbers of the step that begins here."""
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        where = images_seen + self.plan.first, self.plan.count
        first, second = (
            normal(seed, f"{network} latents", *where, self.size, self.world.device).to(self.dtype)
            for network in ("discriminator", "generator")
        )
        augmentation = self._augmentation(seed, *where) if self.plan.augment else None
        return Given(first, second, augmentation, self._half_life(images_seen) if self.ema.warmup else None)

    def _augmentation(self, seed: int, first: int, count: int) -> Tensor:
        rows = [
            uniform(seed, f"{network} {kind} augmentation", first, count, NUMBERS, self.world.device)
            for network in ("discriminator", "generator")
            for kind in ("real", "fake")
        ]
        return torch.stack(rows).to(self.dtype)

    def _half_life(self, images_seen: int) -> Tensor:
        # Filled in on the device: copying a number to it would wait for all steps so far.
        half_life = min(self.ema.half_life_images, images_seen * self.ema.warmup)
        return torch.full((), half_life, dtype=torch.float64, device=self.world.device)
