"""The layers at the images on a GPU, as convolutions of blocks of 2x2 pixels, and real images put beside drawn ones."""

from __future__ import annotations

import functools
import itertools
from types import ModuleType
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable


class ImageToBlocks(nn.Conv2d):
    """Images [n, 3, 2 size, 2 size] to maps [n, channels_out, size, size], with blocks of pixels, for GPUs."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves."""
        return F.conv2d(_ToBlocks.apply(input), _weight_of_blocks(self.weight))


class BlocksToImage(nn.ConvTranspose2d):
    """Maps [n, channels_in, size, size] to images [n, 3, 2 size, 2 size], with blocks of pixels, for GPUs."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves."""
        return _FromBlocks.apply(F.conv_transpose2d(input, _weight_of_blocks(self.weight)))


class _ToBlocks(torch.autograd.Function):
    """Images to blocks of 2x2 pixels; `image_kernels.to_blocks` says how they lie."""

    @staticmethod
    def forward(ctx: Any, images: Tensor) -> Tensor:
        return image_kernels().to_blocks(images)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        return image_kernels().from_blocks(grads[0])


class _FromBlocks(torch.autograd.Function):
    """Blocks of 2x2 pixels to images: the inverse of `_ToBlocks`."""

    @staticmethod
    def forward(ctx: Any, blocks: Tensor) -> Tensor:
        return image_kernels().from_blocks(blocks)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # type: ignore[override]
        return image_kernels().to_blocks(grads[0])


def _weight_of_blocks(weight: Tensor) -> Tensor:
    """[c, 3, 4, 4], for a stride of two pixels, as [c, 16, 2, 2], for a stride of one block."""
    # A product with zeros and ones: it moves numbers and changes none, and so does its gradient. One launch each.
    blocks = weight.permute(0, 2, 3, 1).flatten(1) @ _places_in_blocks(weight.device, weight.dtype)
    return blocks.unflatten(1, (2, 2, -1)).permute(0, 3, 1, 2)


@functools.cache
def _places_in_blocks(device: torch.device, dtype: torch.dtype) -> Tensor:
    """Where each number of a kernel belongs: zeros and ones, [4 4 3, 2 2 16]."""
    places = torch.zeros(4, 4, 3, 2, 2, 16, dtype=dtype)
    for y, x, colour in itertools.product(range(4), range(4), range(3)):
        places[y, x, colour, y // 2, x // 2, (y % 2) * 6 + (x % 2) * 3 + colour] = 1
    return places.reshape(48, 64).to(device)


def join(pixels: Tensor, fakes: Tensor) -> Tensor:
    """Pixels, uint8 [n, 3, size, size], scaled to [-1, 1], with images [m, 3, size, size] behind them: [n + m, ...]."""
    return _Join.apply(pixels, fakes)


class _Join(torch.autograd.Function):
    """One kernel instead of five: a cast, a product, a difference, another cast and a copy of both."""

    @staticmethod
    def forward(ctx: Any, pixels: Tensor, fakes: Tensor) -> Tensor:
        ctx.real = len(pixels)
        return image_kernels().join(pixels, fakes)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor]:  # type: ignore[override]
        return None, grads[0][ctx.real :]


def image_kernels() -> ModuleType:
    """The kernels, imported when they are needed."""
    from dcgan_dist.gan.fast import image_kernels  # Triton is not there on every machine

    return image_kernels
