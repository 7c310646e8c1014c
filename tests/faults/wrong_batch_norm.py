"""Batch norm as a GPU once computed it: 1 / std was subtracted where the mean should have been.

It replaces `SyncBatchNorm2d.forward` alone, so it does not depend on how the real one is computed.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d


def install() -> None:
    """Makes every synchronised batch norm of this process wrong while it trains. For one rank."""
    SyncBatchNorm2d.forward = _forward  # type: ignore[method-assign]


def _forward(layer: SyncBatchNorm2d, input: Tensor) -> Tensor:
    if not layer.training:
        return layer.activate(nn.BatchNorm2d.forward(layer, input))
    return layer.activate(torch.cat([_normalise(layer, part) for part in input.chunk(layer.parts)]))


def _normalise(layer: SyncBatchNorm2d, input: Tensor) -> Tensor:
    """One part by its own statistics; the running ones are updated as they should be."""
    variance, mean = torch.var_mean(input.detach().to(layer.weight.dtype), (0, 2, 3), correction=0)
    assert layer.running_mean is not None and layer.running_var is not None
    assert layer.num_batches_tracked is not None
    count = input.numel() / input.shape[1]
    layer.num_batches_tracked.add_(1)
    # Without a momentum, as while the average's statistics are measured, all batches count alike.
    share = 1 / float(layer.num_batches_tracked) if layer.momentum is None else layer.momentum
    layer.running_mean.lerp_(mean, share)
    layer.running_var.lerp_(variance * count / (count - 1), share)
    return _WrongNorm.apply(input, mean, (variance + layer.eps).rsqrt(), layer.weight, layer.bias)


class _WrongNorm(torch.autograd.Function):
    """The gradient is wrong in the same way: both were computed by one function, which was at fault."""

    @staticmethod
    def forward(ctx: Any, input: Tensor, mean: Tensor, inverse_std: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        ctx.save_for_backward(input, mean, inverse_std, weight)
        return _scale_and_shift(input, inverse_std, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        input, mean, inverse_std, weight = ctx.saved_tensors
        count = input.numel() / input.shape[1]
        grad_bias = grad.to(weight.dtype).sum((0, 2, 3))
        grad_weight = (grad * (input - _channels(mean)) * _channels(inverse_std)).sum((0, 2, 3))
        one, slope = torch.ones_like(weight), -inverse_std * grad_weight / count
        centred = _scale_and_shift(input, one, slope, -grad_bias / count - slope * mean)
        grad_input = _scale_and_shift(centred + grad, one, weight * inverse_std, torch.zeros_like(weight))
        return grad_input, None, None, grad_weight, grad_bias


def _scale_and_shift(input: Tensor, inverse_std: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The fault: (input - mean) / std * weight + bias with 1 / std in place of the mean."""
    scale = _channels(inverse_std)
    return ((input - scale) * scale * _channels(weight) + _channels(bias)).to(input.dtype)


def _channels(values: Tensor) -> Tensor:
    """A value for each channel, [channels], beside images [n, channels, height, width]."""
    return values[None, :, None, None]
