"""What each step is given by its position in the run alone: images, latents and learning rates.

All are functions of the seed and the position, so no rank has another's, and a resumed run is the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from dcgan_dist.base.counter_random import normal, stream_key, stream_seed
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.step_images import StepImages
from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.fast.blocks import image_kernels


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
class StepLatents:
    """This rank's latents at each step."""

    plan: BatchPlan
    size: int
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""
    reused: bool = False
    """The generator's update gets those of the discriminator's."""

    def at(self, position: int | Tensor) -> tuple[Tensor, Tensor]:
        """The latents of the discriminator's and the generator's update, [count, size] each."""
        first = self._drawn("discriminator latents", position)
        return first, first if self.reused else self._drawn("generator latents", position)

    def _drawn(self, stream: str, position: int | Tensor) -> Tensor:
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        first, count = self.plan.first, self.plan.count
        if isinstance(position, Tensor) and kernels_run_on(position.device):
            key = stream_key(seed, stream)
            return image_kernels().draw_normal(position, first, key, count, self.size, self.dtype)
        return normal(seed, stream, position + first, count, self.size, self.world.device).to(self.dtype)


class StepInputs:
    """All that a step is given. It follows from a position that lies on the device, where a CUDA graph moves it on."""

    def __init__(self, images: StepImages, latents: StepLatents, rates: Rates, images_seen: int) -> None:
        self._images, self._latents, self._rates = images, latents, rates
        self._global_batch = latents.plan.global_batch
        self._position = torch.tensor(images_seen, device=latents.world.device)

    def prepare(self, images_seen: int, steps: int) -> int:
        """Does the host's part for the next steps; returns for how many of `steps`, at least one."""
        return self._images.prepare(images_seen, steps)

    def take(self) -> tuple[Tensor, Tensor, Tensor]:
        """The next step's pixels, uint8 [n, 3, size, size], and latents, [n, latent_size] for each update."""
        self._rates.set(self._position)
        pixels = self._images.at(self._position)
        first, second = self._latents.at(self._position)
        self._position.add_(self._global_batch)
        return pixels, first, second
