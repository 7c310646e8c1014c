"""The learning rates over a run: constant, then falling to zero over its last part."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch.optim import Optimizer


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
