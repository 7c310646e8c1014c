"""The initial weights that DCGAN's authors found to work."""

from __future__ import annotations

import torch
from torch import nn


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
