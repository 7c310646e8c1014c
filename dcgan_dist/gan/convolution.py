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


FEW_CHANNELS = 4  # up to so many oneDNN's transposed convolution takes twice as long as the other way
# Output row 2 y + p takes its part of input row y + o from the kernel's row p + 1 - 2 o; -1 and 4 are none of it.
KERNEL_ROWS = torch.tensor([[phase + 1 - 2 * offset for offset in (-1, 0, 1)] for phase in (0, 1)])


def _double(small: Tensor, weight: Tensor) -> Tensor:
    """`small` [n, c, size, size] and `weight` [c, d, 4, 4] to [n, d, 2 size, 2 size]."""
    if weight.shape[1] > FEW_CHANNELS:
        return F.conv_transpose2d(small, weight, stride=STRIDE, padding=PADDING)
    # Four ordinary convolutions at once, one for each of the four pixels that one becomes.
    padded = F.pad(weight, [0, 1, 0, 1])  # a zero at 4, which is also at -1
    kernels = padded[:, :, KERNEL_ROWS[:, None, :, None], KERNEL_ROWS[:, None, :]]  # [c, d, 2, 2, 3, 3]
    pixels = F.conv2d(small, kernels.permute(1, 2, 3, 0, 4, 5).flatten(0, 2), padding=1)  # [n, 4 d, size, size]
    return F.pixel_shuffle(pixels, 2)


FEWEST_WIDE_CHANNELS, LARGEST_SMALL_MAP = 64, 8  # where the convolution with exchanged roles is the faster one


def _weight_gradient(large: Tensor, small: Tensor) -> Tensor:
    """[c, d, 4, 4], from maps `large` [n, d, 2 size, 2 size] and `small` [n, c, size, size], one of them a gradient."""
    c, d, size = small.shape[1], large.shape[1], small.shape[-1]
    if min(c, d) < FEWEST_WIDE_CHANNELS or size > LARGEST_SMALL_MAP:
        return conv2d_weight(large, [c, d, KERNEL, KERNEL], small, STRIDE, PADDING)
    # Images as channels and channels as images: `small` is then a kernel that is laid over `large` at 4x4 places.
    places = F.conv2d(_swap_roles(large), _swap_roles(small), padding=PADDING, dilation=STRIDE)  # [d, c, 4, 4]
    return places.flatten(1).T.contiguous().unflatten(0, (c, KERNEL, KERNEL)).permute(0, 3, 1, 2)


IMAGES_IN_CACHE = 8  # at 64 pixels half a megabyte of maps, which a core's cache holds


def _swap_roles(maps: Tensor) -> Tensor:
    """[n, c, size, size] as [c, n, size, size]; copied a few images at a time it takes half as long as at once."""
    n, c, *size = maps.shape
    swapped = maps.new_empty(c, n, *size)
    for images, place in zip(maps.split(IMAGES_IN_CACHE), swapped.split(IMAGES_IN_CACHE, dim=1), strict=True):
        place.copy_(images.transpose(0, 1))
    return swapped
