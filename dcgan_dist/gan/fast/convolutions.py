"""Faster layers for the convolutions at both ends of the networks, with the same weights under the same names.

A convolution to or from a map of one pixel is a matrix product, and on every device torch's product is the faster. On
a CPU in half precision oneDNN takes more than twice as long for a transposed convolution to three colours as for an
ordinary one that makes four pixels at once. On a GPU both layers at the images see blocks of 2x2 pixels instead.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.grad import conv2d_weight

from dcgan_dist.gan.fast.blocks import BlocksToImage, ImageToBlocks

FEW_CHANNELS = 4  # up to so many `_double` is the faster


def use_fast_convolutions(network: nn.Module, kernels: bool = False) -> None:
    """Replaces layers inside `network` by equal ones that are faster; their parameters stay the same objects.

    `kernels`: this project's kernels run on the device of the network.
    """
    for parent in list(network.modules()):
        for name, layer in parent.named_children():
            if faster := _faster_kind(layer, kernels):
                setattr(parent, name, _with_weight_of(layer, faster))


def _faster_kind(layer: nn.Module, kernels: bool) -> type[nn.Module] | None:
    if not isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)) or layer.kernel_size != (4, 4):
        return None
    transposed = isinstance(layer, nn.ConvTranspose2d)
    if layer.stride == (1, 1) and layer.padding == (0, 0):  # of these networks only layers at the ends
        return FromVector if transposed else ToVector
    if layer.weight.shape[1] == 3 and kernels:
        return BlocksToImage if transposed else ImageToBlocks
    if layer.weight.device.type == "cpu" and layer.weight.shape[1] <= FEW_CHANNELS:
        return ToImage if transposed else FromImage
    return None


def _with_weight_of(layer: nn.Module, kind: type[nn.Module]) -> nn.Module:
    assert isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
    shape = (layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    faster = kind(*shape, bias=False, device="meta")
    faster.weight = layer.weight  # the same tensor, not a copy: an optimizer may hold it already
    return faster.train(layer.training)


class FromVector(nn.ConvTranspose2d):
    """Maps of one pixel [n, channels_in, 1, 1] to maps [n, channels_out, 4, 4], as a matrix product."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Multiplies; the result has its channels last in memory."""
        return (input.flatten(1) @ _rows(self.weight)).unflatten(1, (4, 4, -1)).permute(0, 3, 1, 2)


class ToVector(nn.Conv2d):
    """Maps [n, channels_in, 4, 4] to maps of one pixel [n, channels_out, 1, 1], as a matrix product."""

    def forward(self, input: Tensor) -> Tensor:
        """Multiplies."""
        return (_rows(input) @ _rows(self.weight).T)[:, :, None, None]


def _rows(maps: Tensor) -> Tensor:
    """[n, c, 4, 4] as [n, 4 4 c], without a copy where the channels are last in memory."""
    return maps.permute(0, 2, 3, 1).flatten(1)


class ToImage(nn.ConvTranspose2d):
    """Maps [n, channels_in, size, size] to images [n, few, 2 size, 2 size]: a 4x4 kernel, doubling, for CPUs."""

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves, under autocast in its own way."""
        if not torch.is_autocast_enabled("cpu"):
            return super().forward(input)
        return _OfImages.apply(input, self.weight, True)


class FromImage(nn.Conv2d):
    """Images [n, few, 2 size, 2 size] to maps [n, channels_out, size, size]: `ToImage` is its gradient."""

    def forward(self, input: Tensor) -> Tensor:
        """Convolves, under autocast with a gradient of its own."""
        return (
            _OfImages.apply(input, self.weight, False) if torch.is_autocast_enabled("cpu") else super().forward(input)
        )


class _OfImages(torch.autograd.Function):
    """Both convolutions between images and maps, in autocast's precision; each is the other's gradient."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        half = torch.get_autocast_dtype("cpu")
        input, half_weight = input.to(half), weight.to(half)
        ctx.save_for_backward(input if ctx.needs_input_grad[1] else None, half_weight)
        ctx.transposed, ctx.weight_dtype = transposed, weight.dtype
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
            of_weight = conv2d_weight(images, list(weight.shape), maps, stride=2, padding=1).to(ctx.weight_dtype)
        return of_input, of_weight, None


def _halve(images: Tensor, weight: Tensor) -> Tensor:
    """`images` [n, d, 2 size, 2 size] and `weight` [c, d, 4, 4] to [n, c, size, size]."""
    return F.conv2d(images, weight, stride=2, padding=1)


def _double(maps: Tensor, weight: Tensor) -> Tensor:
    """`maps` [n, c, size, size] and `weight` [c, d, 4, 4] to [n, d, 2 size, 2 size]."""
    # Output rows 2 i - 1 and 2 i take their parts of input rows i - 1 and i, from the weight's rows 2, 3 and 0, 1. So
    # an ordinary convolution with a 2x2 kernel makes blocks of 2x2 pixels, the outermost pixels of which are too many.
    kernel = weight.unflatten(3, (2, 2)).unflatten(2, (2, 2)).flip(2, 4)  # rows, then columns, each: in, out
    blocks = F.conv2d(maps, kernel.permute(1, 3, 5, 0, 2, 4).flatten(0, 2), padding=1)  # [n, 4 d, size + 1, size + 1]
    return F.pixel_shuffle(blocks, 2)[..., 1:-1, 1:-1]
