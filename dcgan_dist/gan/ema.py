"""The slowly moving average of a network: it draws better images than the network of any one step."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, images: int, half_life_images: int) -> None:
    """Moves `average` towards `network` after a step on `images` images.

    The half-life is in images, so the average means the same at any batch size (Karras et al. 2018, section 4). Batch
    norm's statistics are left alone: those of `network` are not the average's own, which have to be measured before it
    is used.
    """
    decay = 0.5 ** (images / half_life_images)
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(network.parameters()), 0)
