"""The discriminator: an image becomes one number by halving it until a 4x4 map is left."""

from __future__ import annotations

import itertools
import math

from torch import Tensor, nn


class Discriminator(nn.Module):
    """DCGAN's discriminator (Radford et al. 2016), the generator's mirror image.

    Takes images [n, 3, image_size, image_size] in [-1, 1]; returns logits [n], above zero for "real". `input_norm`
    puts batch norm after the first convolution as well; the paper leaves it out there.

    With `num_classes` it also takes conditions [n, num_classes], 1 where the image is said to show a class and else 0:
    to the logit comes the product of the last maps with each of these classes' own weights, the projection of Miyato
    and Koyama (2018, equation 3).
    """

    def __init__(self, image_size: int, base_channels: int, input_norm: bool, num_classes: int = 0) -> None:
        super().__init__()
        self.num_classes = num_classes
        halvings = int(math.log2(image_size)) - 3  # from half the image size to 4 pixels
        channels = [base_channels * 2**power for power in range(halvings + 1)]
        self.from_image = _halving(3, base_channels, norm=input_norm)
        self.downsample = nn.Sequential(
            *(_halving(narrow, wide, norm=True) for narrow, wide in itertools.pairwise(channels))
        )
        self.to_logit = nn.Conv2d(channels[-1], 1 + num_classes, kernel_size=4, bias=False)

    def forward(self, images: Tensor, conditions: Tensor | None = None) -> Tensor:
        """Judges each image."""
        maps = self.downsample(self.from_image(images))  # [n, channels, 4, 4]
        logits = self.to_logit(maps)  # [n, 1 + num_classes, 1, 1]
        if conditions is None:
            return logits.flatten()
        return logits[:, 0, 0, 0] + (logits[:, 1:, 0, 0] * conditions).sum(1)


def _halving(channels_in: int, channels_out: int, norm: bool) -> nn.Sequential:
    layers: list[nn.Module] = [
        nn.Conv2d(channels_in, channels_out, kernel_size=4, stride=2, padding=1, bias=False),
        nn.LeakyReLU(0.2, inplace=True),
    ]
    if norm:
        layers.insert(1, nn.BatchNorm2d(channels_out))
    return nn.Sequential(*layers)
