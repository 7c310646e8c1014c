"""The latents of each step: functions of the seed and the position, so never another rank's."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import normal, stream_seed
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World


@dataclass(frozen=True)
class StepLatents:
    """This rank's latents at each step."""

    plan: BatchPlan
    size: int
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""

    def at(self, images_seen: int) -> tuple[Tensor, Tensor]:
        """Returns the latents of the discriminator's and the generator's update, [count, size] each."""
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        first, second = (
            normal(seed, stream, images_seen + self.plan.first, self.plan.count, self.size, self.world.device)
            for stream in ("discriminator latents", "generator latents")
        )
        return first.to(self.dtype), second.to(self.dtype)
