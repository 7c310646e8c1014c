"""What each step is given by its position in the run alone: latents and learning rates.

Latents are functions of the seed and the position, so no rank has another's; rates make a resumed run the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.optim import Optimizer

from dcgan_dist.base.counter_random import normal, stream_seed
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
    """This rank's latents at each step."""

    plan: BatchPlan
    size: int
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""
    conditions: Tensor | None = None
    """Those of all images, uint8 [images, classes] on the device, where the networks are told of classes."""

    def at(self, images_seen: int) -> tuple[Tensor, Tensor]:
        """Returns the latents of the discriminator's and the generator's update, [count, size] each.

        Behind both are the conditions of the step's images, if there are any: [count, size + classes].
        """
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        first, second = (
            normal(seed, stream, images_seen + self.plan.first, self.plan.count, self.size, self.world.device)
            for stream in ("discriminator latents", "generator latents")
        )
        first, second = first.to(self.dtype), second.to(self.dtype)
        if self.conditions is None:
            return first, second
        images = torch.tensor(self.plan.ids(images_seen)).to(self.world.device, non_blocking=True)
        shown = self.conditions[images].to(self.dtype)
        return torch.cat([first, shown], dim=1), torch.cat([second, shown], dim=1)
