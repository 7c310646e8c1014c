"""What each step is given by its position in the run alone: images, random numbers and learning rates.

All are functions of the seed and the position, so no rank has another's, and a resumed run is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from dcgan_dist.base.counter_random import normal, stream_key, stream_seed, uniform
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.step_images import EpochOrders, StepImages
from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.augment import NUMBERS
from dcgan_dist.gan.fast.blocks import image_kernels
from dcgan_dist.gan.step import Batch

AUGMENTATION = tuple(
    f"{update} {kind} augmentation" for update in ("discriminator", "generator") for kind in ("real", "fake")
)


class Rates:
    """The rates of optimizers, from the position alone, so that a resumed run has the same."""

    def __init__(self, optimizers: Sequence[Optimizer], total_images: int, decay_last: float) -> None:
        """The rates must lie on the device, where a CUDA graph finds them, unless `decay_last` is 0."""
        self._groups = [group for optimizer in optimizers for group in optimizer.param_groups] if decay_last else []
        self._full = [float(group["lr"]) for group in self._groups]
        self._total_images, self._decay_last = total_images, decay_last

    def set(self, position: Tensor) -> None:
        """Sets the rates for the step at `position`: full, then evenly falling to 0 over the last part of the run."""
        for group, full in zip(self._groups, self._full, strict=True):
            left = (self._total_images - position) / (self._decay_last * self._total_images)
            group["lr"].copy_(full * left.clamp(0, 1))


@dataclass(frozen=True)
class StepNumbers:
    """This rank's random numbers at each step: latents, and what some switches need besides."""

    config: TrainConfig
    plan: BatchPlan
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""
    conditions: Tensor | None = None
    """Those of all images, uint8 [images, classes] on the device, where the networks are told of classes."""

    def latents(self, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """Those of the discriminator's and the generator's update, [count, latent_size] each."""
        size = self.config.model.latent_size
        first = self._normal("discriminator latents", position, size)
        return first, first if self.config.train.reuse_fakes else self._normal("generator latents", position, size)

    def noise(self, position: int | Tensor) -> Tensor | None:
        """For the penalty, from N(0, 1), in the shape of the step's images; None without one."""
        if not self.config.train.r1_gamma:
            return None
        size = self.config.data.image_size
        noise = self._normal("penalty noise", position, 3 * size**2)
        return noise.unflatten(1, (size, size, 3)).permute(0, 3, 1, 2)  # colours last in memory, as pixels have them

    def augmentation(self, position: int | Tensor) -> Tensor | None:
        """For `augment`, [4, count, NUMBERS]; see `gan.step.Batch`. None without it."""
        if self.config.data.augment == "none":
            return None
        rows = [
            uniform(self._seed, stream, position + self.plan.first, self.plan.count, NUMBERS, self.world.device)
            for stream in AUGMENTATION
        ]
        return torch.stack(rows).to(self.dtype)

    @property
    def _seed(self) -> int:
        return stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed

    def _normal(self, stream: str, position: int | Tensor, size: int) -> Tensor:
        first, count = self.plan.first, self.plan.count
        if isinstance(position, Tensor) and kernels_run_on(position.device):
            key = stream_key(self._seed, stream)
            return image_kernels().draw_normal(position, first, key, count, size, self.dtype)
        return normal(self._seed, stream, position + first, count, size, self.world.device).to(self.dtype)


class StepInputs:
    """All that a step is given. It follows from a position that lies on the device, where a CUDA graph moves it on."""

    def __init__(self, images: StepImages, numbers: StepNumbers, rates: Rates, images_seen: int) -> None:
        self._images, self._numbers, self._rates = images, numbers, rates
        self._global_batch = numbers.plan.global_batch
        self._position = torch.tensor(images_seen, device=numbers.world.device)
        self._ema = numbers.config.ema
        self._orders = None if numbers.conditions is None else EpochOrders(numbers.plan, self._position.device)

    def prepare(self, images_seen: int, steps: int) -> int:
        """Does the host's part for the next steps; returns for how many of `steps`, at least one."""
        if self._orders is not None:
            steps = self._orders.prepare(images_seen, steps)
        return self._images.prepare(images_seen, steps)

    def take(self) -> tuple[Batch, int | Tensor]:
        """The next step's batch, and the half-life of the average in images, a scalar on the device if it changes."""
        position, numbers = self._position, self._numbers
        self._rates.set(position)
        batch = Batch(
            self._images.at(position),
            *self._latents(position),
            numbers.noise(position),
            numbers.augmentation(position),
        )
        half_life = self._ema.half_life_images
        if self._ema.warmup:
            half_life = (position.double() * self._ema.warmup).clamp(max=half_life)
        position.add_(self._global_batch)
        return batch, half_life

    def _latents(self, position: Tensor) -> tuple[Tensor, Tensor]:
        """Those of both updates; behind them are the conditions of the step's images, if there are any."""
        first, second = self._numbers.latents(position)
        if self._orders is None or self._numbers.conditions is None:
            return first, second
        shown = self._numbers.conditions.index_select(0, self._orders.ids(position)).to(first)
        both = torch.cat([first, shown], dim=1)
        return both, both if second is first else torch.cat([second, shown], dim=1)
