"""The two convolutions DCGAN is made of: kernel 4, stride 2, padding 1; one halves an image, its mirror doubles it."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

KERNEL, STRIDE, PADDING = 4, 2, 1

# Below this width a layer's weights are few and its maps large: unfolding them costs more than the product saves.
FEWEST_CHANNELS_TO_UNFOLD = 128


class Halving(nn.Conv2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, size / 2, size / 2]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """Convolves."""
        if _learns_faster_unfolded(self.weight):
            return _Unfolded.apply(input, self.weight, False)
        return super().forward(input)


class Doubling(nn.ConvTranspose2d):
    """Maps [n, channels_in, size, size] to [n, channels_out, 2 size, 2 size]."""

    def __init__(self, channels_in: int, channels_out: int) -> None:
        super().__init__(channels_in, channels_out, KERNEL, STRIDE, PADDING, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """Convolves, transposed."""
        if _learns_faster_unfolded(self.weight):
            return _Unfolded.apply(input, self.weight, True)
        return super().forward(input, output_size)


def _learns_faster_unfolded(weight: Tensor) -> bool:
    """On a CPU in half precision, where oneDNN takes twice as long over some weights' gradients as a matrix product."""
    return (
        weight.device.type == "cpu"
        and weight.requires_grad
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and min(weight.shape[:2]) >= FEWEST_CHANNELS_TO_UNFOLD
    )


class _Unfolded(torch.autograd.Function):
    """The same convolution; its weight's gradient is one matrix product over the unfolded larger map."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, weight: Tensor, transposed: bool) -> Tensor:
        half = torch.get_autocast_dtype("cpu")
        input, half_weight = input.to(half), weight.to(half)
        ctx.save_for_backward(input, half_weight)
        ctx.transposed = transposed
        convolve = F.conv_transpose2d if transposed else F.conv2d
        return convolve(input, half_weight, stride=STRIDE, padding=PADDING)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight = ctx.saved_tensors
        (grad,) = grads
        grad_input = None
        if ctx.needs_input_grad[0]:
            convolve = F.conv2d if ctx.transposed else F.conv_transpose2d  # each is the other's gradient
            grad_input = convolve(grad, weight, stride=STRIDE, padding=PADDING)
        large, small = (grad, input) if ctx.transposed else (input, grad)
        return grad_input, _weight_gradient(large, small).float(), None


def _weight_gradient(large: Tensor, small: Tensor) -> Tensor:
    """[c, d, 4, 4] from maps `large` [n, d, 2 size, 2 size] and `small` [n, c, size, size], channels last in memory."""
    rows = F.pad(large, [PADDING] * 4).permute(0, 2, 3, 1).unfold(1, KERNEL, STRIDE).unfold(2, KERNEL, STRIDE)
    patches = rows.permute(0, 1, 2, 4, 5, 3).flatten(3).flatten(0, 2)  # [n size size, 4 4 d]
    values = small.permute(0, 2, 3, 1).flatten(0, 2)  # [n size size, c]
    return (values.T @ patches).view(-1, KERNEL, KERNEL, large.shape[1]).permute(0, 3, 1, 2)
