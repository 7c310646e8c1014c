"""What the discriminator sees in images: its maps after every convolution, as the DCGAN paper uses them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import adaptive_max_pool2d

from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.images import to_signed_unit


@torch.inference_mode()
def discriminator_features(discriminator: Discriminator, pixels: Tensor) -> Tensor:
    """Images, uint8 [n, 3, size, size], become float32 [n, features], each by itself.

    The maps of every layer are max-pooled to 4x4, flattened and put in one row (Radford et al. 2016, section 5.1).
    """
    device = next(discriminator.parameters()).device
    maps = discriminator.from_image(to_signed_unit(pixels.to(device), torch.float32))
    pooled = [adaptive_max_pool2d(maps, 4)]
    for layer in discriminator.downsample:
        maps = layer(maps)
        pooled.append(adaptive_max_pool2d(maps, 4))
    return torch.cat([part.flatten(1) for part in pooled], dim=1)
