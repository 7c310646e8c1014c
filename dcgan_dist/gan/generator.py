"""The generator: a latent vector becomes an image by doubling a 4x4 map until it has the image's size."""

from __future__ import annotations

import itertools
import math

import torch
from torch import Tensor, nn


class Generator(nn.Module):
    """DCGAN's generator (Radford et al. 2016, figure 1), for any image size that is a power of two from 32.

    Takes latents [n, latent_size]; returns images [n, 3, image_size, image_size] in [-1, 1]. At 64 pixels and 64 base
    channels the maps have 512, 256, 128 and 64 channels; every doubling of the image size adds one doubling layer.

    With `num_classes` the latents are [n, latent_size + num_classes]: the last columns are conditions, 1 where an image
    is to show a class and else 0. Each class has maps of its own in the first layer (Mirza and Osindero 2014, equation
    2), which are added to those of the latent. They begin as small as those of a single number: if they were as strong
    as the whole latent, the images of a class would become alike.
    """

    def __init__(self, image_size: int, latent_size: int, base_channels: int, num_classes: int = 0) -> None:
        super().__init__()
        doublings = int(math.log2(image_size)) - 3  # from 4 pixels to half the image size
        channels = [base_channels * 2**power for power in range(doublings, -1, -1)]
        self.project = nn.Sequential(
            nn.ConvTranspose2d(latent_size + num_classes, channels[0], kernel_size=4, bias=False),
            nn.BatchNorm2d(channels[0]),
            nn.ReLU(inplace=True),
        )
        self.upsample = nn.Sequential(*(_doubling(wide, narrow) for wide, narrow in itertools.pairwise(channels)))
        self.to_image = nn.Sequential(
            nn.ConvTranspose2d(base_channels, 3, kernel_size=4, stride=2, padding=1, bias=False), nn.Tanh()
        )

    def forward(self, latents: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Draws an image from each latent; `conditions` [n, num_classes] may be given by themselves."""
        if conditions is not None:
            latents = torch.cat([latents, conditions], dim=1)
        maps = self.project(latents[:, :, None, None])  # [n, channels, 4, 4]
        maps = self.upsample(maps)  # [n, base_channels, image_size / 2, image_size / 2]
        return self.to_image(maps)


def _doubling(channels_in: int, channels_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.ConvTranspose2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(channels_out),
        nn.ReLU(inplace=True),
    )
