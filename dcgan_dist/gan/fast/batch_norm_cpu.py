"""Batch norm's arithmetic for CPUs, in the operators that torch's own BatchNorm2d consists of.

With values a channel in fp32 and maps in bf16, torch's ordinary operators take twenty times as long on a CPU. These are
operators of ATen that BatchNorm2d calls and differentiates by; each is given buffers of its own, as its schema in
`native_functions.yaml` asks, and none of them is used on a GPU. There is no activation behind the normalisation here.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dcgan_dist.gan.fast import batch_norm_plain
from dcgan_dist.gan.fast.batch_norm_plain import Norm

combine = batch_norm_plain.combine
add_up = batch_norm_plain.add_up


def measure(input: Tensor, parts: int, weight: Tensor) -> Tensor:
    """What is known of this rank's values: pieces [1, parts, 3, channels]; see `batch_norm_plain`."""
    count = input[:, 0].numel() // parts
    pieces = []
    for part in input.chunk(parts):
        # They give the statistics their precision; with a momentum of 0 they stay as they are.
        running_mean, running_variance = torch.zeros_like(weight), torch.ones_like(weight)
        mean, variance = torch.batch_norm_update_stats(part, running_mean, running_variance, 0.0)
        pieces.append(torch.stack([torch.full_like(mean, count), mean, variance * count]))
    return torch.stack(pieces)[None]


def normalise(input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """(input - mean) / std * weight + bias."""
    assert norm.slope == 1.0
    output = torch.empty_like(input)
    for part, (count, mean, deviations), out in zip(
        input.chunk(len(combined)), combined, output.chunk(len(combined)), strict=True
    ):
        _scale_and_shift(part, mean, deviations / count, norm, out=out)
    return output


def gradient_sums(grad: Tensor, input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """This rank's sums of dy and dy * x_hat: pieces [1, parts, 2, channels]."""
    parts, sums = len(combined), []
    inverse_stds = (combined[:, 2] / combined[:, 0] + norm.eps).rsqrt()
    for part_grad, part, mean, inverse_std in zip(
        grad.chunk(parts), input.chunk(parts), combined[:, 1], inverse_stds, strict=True
    ):
        # As autograd calls it behind a BatchNorm2d in training: its saved mean and 1 / std, and which gradients.
        _, of_weight, of_bias = torch.ops.aten.native_batch_norm_backward(
            part_grad, part, norm.weight, None, None, mean, inverse_std, True, norm.eps, [False, True, True]
        )
        sums.append(torch.stack([of_bias, of_weight]))
    return torch.stack(sums)[None]


def input_gradient(grad: Tensor, input: Tensor, combined: Tensor, sums: Tensor, norm: Norm) -> Tensor:
    """weight / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)), from the sums of all ranks, [parts, 2, channels]."""
    parts, output = len(combined), torch.empty_like(input)
    zero, one = torch.zeros_like(norm.weight), torch.ones_like(norm.weight)
    for part_grad, part, (count, mean, deviations), (sum_grad, sum_grad_x_hat), out in zip(
        grad.chunk(parts), input.chunk(parts), combined, sums, output.chunk(parts), strict=True
    ):
        inverse_std = (deviations / count + norm.eps).rsqrt()
        slope_of_x = -inverse_std * sum_grad_x_hat / count
        centred = torch.empty_like(part)
        shift = -sum_grad / count - slope_of_x * mean
        _scale_and_shift(part, zero, one, Norm(slope_of_x, shift, eps=0.0), out=centred)
        _scale_and_shift(centred.add_(part_grad), zero, one, Norm(norm.weight * inverse_std, zero, eps=0.0), out=out)
    return output


def _scale_and_shift(input: Tensor, mean: Tensor, variance: Tensor, norm: Norm, out: Tensor) -> None:
    """out = (input - mean) / std * weight + bias in one pass; in half precision only the result is rounded.

    It is BatchNorm2d in evaluation mode with a place for its result. Its schema names three tensors that it may write
    into, (a!), (b!) and (c!): they are three here.
    """
    save_mean, save_inverse_std = torch.empty_like(norm.weight), torch.empty_like(norm.weight)
    torch.ops.aten.native_batch_norm.out(
        *(input, norm.weight, norm.bias, mean, variance, False, 0.0, norm.eps),
        out=out,
        save_mean=save_mean,
        save_invstd=save_inverse_std,
    )
