"""The convolutions DCGAN is made of: halving an image and its mirror, doubling one; and those from and to a vector.

On a CPU in half precision the first two have a backward pass, and for images a forward pass, of their own: the same
sums, put to oneDNN in a form that it is fast at.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.grad import conv2d_weight

KERNEL, STRIDE, PADDING = 4, 2, 1


class Halving(nn.Conv2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, size / 2, size / 2]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolves."""
        return _InHalf.apply(input, self.weight, False) if _in_half_on_cpu(input) else super().forward(input)


class Doubling(nn.ConvTranspose2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, 2 size, 2 size]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves, transposed."""
        return _InHalf.apply(input, self.weight, True) if _in_half_on_cpu(input) else super().forward(input)


class FromVector(nn.ConvTranspose2d):
    """Vectors [n, channels_in], also as maps of one pixel, to maps [n, channels_out, 4, 4]: here a matrix product."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, 1, 0, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Multiplies; the result has its channels last in memory."""
        return (input.flatten(1) @ _rows(self.weight)).unflatten(1, (KERNEL, KERNEL, -1)).permute(0, 3, 1, 2)


class ToVector(nn.Conv2d):
    """Maps [n, channels_in, 4, 4] to vectors [n, channels_out], likewise."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, 1, 0, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Multiplies."""
        return _rows(input) @ _rows(self.weight).T


def _rows(maps: Tensor) -> Tensor:
    """[n, c, 4, 4] as [n, 4 4 c], without a copy where the channels are last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1)


def _in_half_on_cpu(input: Tensor) -> bool:
    return input.device.type == "cpu" and torch.is_autocast_enabled("cpu")


class _InHalf(torch.autograd.Function):
    """Both convolutions in autocast's precision; each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        half = torch.get_autocast_dtype("cpu")
        input, half_weight = input.to(half), weight.to(half)
        ctx.save_for_backward(input if weight.requires_grad else None, half_weight)
        ctx.transposed = transposed
        return _double(input, half_weight) if transposed else _halve(input, half_weight)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        (grad,) = grads
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _halve(grad, weight) if ctx.transposed else _double(grad, weight)
        if ctx.needs_input_grad[1]:
            of_weight = _weight_gradient(*((grad, input) if ctx.transposed else (input, grad))).float()
        return of_input, of_weight, None


def _halve(large: Tensor, weight: Tensor) -> Tensor:
    """`large` [n, d, 2 size, 2 size] and `weight` [c, d, 4, 4] to [n, c, size, size]."""
    return F.conv2d(large, weight, stride=STRIDE, padding=PADDING)


FEW_CHANNELS = 4  # up to so many oneDNN's transposed convolution takes more than twice as long as the other way


def _double(small: Tensor, weight: Tensor) -> Tensor:
    """`small` [n, c, size, size] and `weight` [c, d, 4, 4] to [n, d, 2 size, 2 size]."""
    if weight.shape[1] > FEW_CHANNELS:
        return F.conv_transpose2d(small, weight, stride=STRIDE, padding=PADDING)
    # Output rows 2 i - 1 and 2 i take their parts of input rows i - 1 and i, from the weight's rows 2, 3 and 0, 1. So
    # an ordinary convolution of 2x2 pixels makes blocks of 2x2 pixels, whose outermost rows and columns are too many.
    halves = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # [c, d, in, out, in, out]
    blocks = F.conv2d(small, halves.permute(1, 3, 5, 0, 2, 4).flatten(0, 2), padding=1)  # [n, 4 d, size + 1, size + 1]
    return F.pixel_shuffle(blocks, 2)[..., 1:-1, 1:-1]


FEWEST_WIDE_CHANNELS, LARGEST_SMALL_MAP = 64, 8  # where the convolution with exchanged roles is the faster one
FOUR = torch.int64  # four numbers in half precision that are copied as one


def _weight_gradient(large: Tensor, small: Tensor) -> Tensor:
    """[c, d, 4, 4], from maps `large` [n, d, 2 size, 2 size] and `small` [n, c, size, size], one of them a gradient."""
    c, d, size = small.shape[1], large.shape[1], small.shape[-1]
    if min(c, d) < FEWEST_WIDE_CHANNELS or size > LARGEST_SMALL_MAP or d % 4:
        return conv2d_weight(large, [c, d, KERNEL, KERNEL], small, STRIDE, PADDING)
    # Images as channels and channels as images: `small` is then a kernel that is laid over `large` at 4x4 places.
    # Each four channels of `large` stay neighbours, as columns, of which the kernel takes every fourth.
    columns = _channels_last(large).view(FOUR).permute(3, 0, 1, 2).contiguous().view(large.dtype)
    kernel = _channels_to_front(small)
    places = F.conv2d(columns, kernel, padding=(PADDING, 4 * PADDING), dilation=(STRIDE, 4 * STRIDE))
    return places.view(FOUR).permute(1, 2, 3, 0).contiguous().view(large.dtype).permute(0, 3, 1, 2)


IMAGES_IN_CACHE = 8  # at 64 pixels half a megabyte of maps, which a core's cache holds


def _channels_to_front(maps: Tensor) -> Tensor:
    """[n, c, size, size] as [c, n, size, size]; copied a few images at a time it takes half as long as at once."""
    n, c, *size = maps.shape
    swapped = maps.new_empty(c, n, *size)
    for images, place in zip(maps.split(IMAGES_IN_CACHE), swapped.split(IMAGES_IN_CACHE, dim=1), strict=True):
        place.copy_(images.transpose(0, 1))
    return swapped


def _channels_last(maps: Tensor) -> Tensor:
    """[n, c, height, width] as [n, height, width, c], a copy only where that is not their order in memory."""
    return maps.permute(0, 2, 3, 1).contiguous()
