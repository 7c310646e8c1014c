"""What each step is given by its position in the run alone: latents, noise and learning rates.

Latents and noise are functions of the seed and the position, so no rank has another's; rates make a resumed run the
same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from dcgan_dist.base.counter_random import normal, stream_seed
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World


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


@dataclass(frozen=True)
class StepLatents:
    """This rank's latents at each step, and the noise of a penalty."""

    plan: BatchPlan
    size: int
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""
    noise_size: int = 0
    """Height and width of the noise in pixels; 0: none is needed."""

    @classmethod
    def of(
        cls, config: TrainConfig, plan: BatchPlan, world: World, dtype: torch.dtype, rollbacks: int = 0
    ) -> StepLatents:
        """Returns what a step with these settings needs."""
        noise_size = config.data.image_size if config.train.r1_gamma else 0
        return cls(plan, config.model.latent_size, world, dtype, rollbacks, noise_size)

    def at(self, images_seen: int) -> tuple[Tensor, ...]:
        """Returns the latents of the discriminator's and the generator's update, [count, size] each.

        Behind them, if it is needed, noise from N(0, 1) for real images, [count, 3, noise_size, noise_size].
        """
        drawn = [
            self._normal(stream, images_seen, self.size) for stream in ("discriminator latents", "generator latents")
        ]
        if self.noise_size:
            noise = self._normal("penalty noise", images_seen, 3 * self.noise_size**2)
            shape = (self.noise_size, self.noise_size, 3)  # colours last in memory, as pixels have them
            drawn.append(noise.unflatten(1, shape).permute(0, 3, 1, 2))
        return tuple(drawn)

    def _normal(self, stream: str, images_seen: int, size: int) -> Tensor:
        """Returns this rank's rows of a stream at one step, [count, size]."""
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        first = images_seen + self.plan.first
        return normal(seed, stream, first, self.plan.count, size, self.world.device).to(self.dtype)
