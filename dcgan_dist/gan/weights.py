"""How weights begin, and the slowly moving average of them that draws better images than any one step's."""

from __future__ import annotations

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


def initialize(network: nn.Module, random: torch.Generator) -> None:
    """Draws weights as Radford et al. (2016, section 4) do: convolutions from N(0, 0.02), batch norm from N(1, 0.02).

    All numbers come from `random`, in the order of the layers, so the same seed gives the same network everywhere.
    """
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02, generator=random)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02, generator=random)
            nn.init.zeros_(layer.bias)


@torch.no_grad()
def update_average(average: nn.Module, network: nn.Module, images: int, half_life_images: int) -> None:
    """Moves `average` towards `network` after a step on `images` images.

    The half-life is in images, so the average means the same at any batch size (Karras et al. 2018, section 4). Batch
    norm's statistics are left alone: those of `network` are not the average's own, which have to be measured before it
    is used.
    """
    decay = 0.5 ** (images / half_life_images)
    get_ema_multi_avg_fn(decay)(list(average.parameters()), list(network.parameters()), 0)
