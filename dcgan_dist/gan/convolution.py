"""The convolutions DCGAN is made of: halving an image and its mirror, doubling one; and those from and to a vector.

On a CPU in half precision the first two are put to oneDNN in forms that it is fast at: those to images as a convolution
that makes four pixels at once and, without AMX, wide ones as the matrix products of `winograd`.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from dcgan_dist.gan import winograd
from dcgan_dist.gan.precision import cpu_has_amx

KERNEL, STRIDE, PADDING = 4, 2, 1


class Halving(nn.Conv2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, size / 2, size / 2]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolves."""
        way = _faster_way(input, self.weight, tile=4)
        return way.apply(input, self.weight, False) if way else super().forward(input)


class Doubling(nn.ConvTranspose2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, 2 size, 2 size]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves, transposed."""
        way = _faster_way(input, self.weight, tile=2)
        return way.apply(input, self.weight, True) if way else super().forward(input)


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


# Winograd's sums cost the same for each channel; what they save grows with the number of channels. Measured with
# AVX512-BF16. With AMX, products cost so little that the sums would be the slower part.
WINOGRAD_PAYS, FEWEST_WIDE_CHANNELS = not cpu_has_amx(), 128
FEW_CHANNELS = 4  # up to so many oneDNN's transposed convolution takes more than twice as long as `_double`


def _faster_way(input: Tensor, weight: Tensor, tile: int) -> type[torch.autograd.Function] | None:
    """The function that computes a convolution faster than torch's own; None where that is the fastest.

    `tile`: pixels of the input's side that Winograd's way takes at once.
    """
    if input.device.type != "cpu" or not torch.is_autocast_enabled("cpu"):
        return None
    height, width = input.shape[-2:]
    wide = min(weight.shape[:2]) >= FEWEST_WIDE_CHANNELS
    if WINOGRAD_PAYS and wide and height == width and width % tile == 0 and not torch.compiler.is_compiling():
        return _Wide  # writes into views of views, which torch.compile gets wrong
    return _OfImages if weight.shape[1] <= FEW_CHANNELS else None


class _Wide(torch.autograd.Function):
    """Both convolutions, in autocast's precision, by Winograd's nine products; each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        half = torch.get_autocast_dtype("cpu")
        kernels = winograd.from_weight(weight, half)
        n, size = len(input), input.shape[-1]
        if transposed:
            factors = winograd.from_small(input.to(half))
            output = winograd.to_large(factors @ kernels, n, 2 * size)
        else:
            factors = winograd.from_large(input.to(half))
            output = winograd.to_small(factors @ kernels.mT, n, size // 2)
        ctx.save_for_backward(factors if ctx.needs_input_grad[1] else None, kernels)
        ctx.transposed, ctx.n, ctx.size = transposed, n, size
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        factors, kernels = ctx.saved_tensors
        of_input = of_weight = None
        if ctx.transposed:
            grad_factors = winograd.from_large(grads[0])
            if ctx.needs_input_grad[0]:
                of_input = winograd.to_small(grad_factors @ kernels.mT, ctx.n, ctx.size)
            if ctx.needs_input_grad[1]:
                of_weight = winograd.to_weight(factors.mT @ grad_factors, torch.float32)
        else:
            grad_factors = winograd.from_small(grads[0])
            if ctx.needs_input_grad[0]:
                of_input = winograd.to_large(grad_factors @ kernels, ctx.n, ctx.size)
            if ctx.needs_input_grad[1]:
                of_weight = winograd.to_weight(grad_factors.mT @ factors, torch.float32)
        return of_input, of_weight, None


class _OfImages(torch.autograd.Function):
    """Both convolutions between images and maps, in autocast's precision; each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        half = torch.get_autocast_dtype("cpu")
        input, half_weight = input.to(half), weight.to(half)
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, half_weight)
        ctx.transposed = transposed
        return _double(input, half_weight) if transposed else _halve(input, half_weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, weight = ctx.saved_tensors
        (grad,) = grads
        of_input = of_weight = None
        if ctx.needs_input_grad[0]:
            of_input = _halve(grad, weight) if ctx.transposed else _double(grad, weight)
        if ctx.needs_input_grad[1]:
            images, maps = (grad, input) if ctx.transposed else (input, grad)
            of_weight = conv2d_weight(images, list(weight.shape), maps, STRIDE, PADDING).float()
        return of_input, of_weight, None


def _halve(images: Tensor, weight: Tensor) -> Tensor:
    """`images` [n, d, 2 size, 2 size] and `weight` [c, d, 4, 4] to [n, c, size, size]."""
    return F.conv2d(images, weight, stride=STRIDE, padding=PADDING)


def _double(maps: Tensor, weight: Tensor) -> Tensor:
    """`maps` [n, c, size, size] and `weight` [c, d, 4, 4] to [n, d, 2 size, 2 size]."""
    # Output rows 2 i - 1 and 2 i take their parts of input rows i - 1 and i, from the weight's rows 2, 3 and 0, 1. So
    # an ordinary convolution with a 2x2 kernel makes blocks of 2x2 pixels, the outermost pixels of which are too many.
    kernel = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # rows, then columns, each: in, out
    blocks = F.conv2d(maps, kernel.permute(1, 3, 5, 0, 2, 4).flatten(0, 2), padding=1)  # [n, 4 d, size + 1, size + 1]
    return F.pixel_shuffle(blocks, 2)[..., 1:-1, 1:-1]
