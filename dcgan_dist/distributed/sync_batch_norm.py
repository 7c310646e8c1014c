"""Batch norm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm refuses CPU tensors and makes the host wait once a layer; this one does neither. Keys of the
state dict are BatchNorm2d's, so a checkpoint does not know how many ranks wrote it.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcgan_dist.distributed.world import World


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the whole batch, however it is divided over the ranks.

    In evaluation mode it is BatchNorm2d. One collective in the forward pass, one in the backward pass.
    """

    def __init__(self, layer: nn.BatchNorm2d, world: World) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self.world = world
        # The same tensors, not copies: optimizers may hold them already.
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [n, channels, height, width]; every rank must call it, each with at least one image."""
        if not self.training:
            return super().forward(input)
        output, mean, variance, count = _Normalise.apply(input, self.weight, self.bias, self.eps, self.world)
        self._track(mean, variance, count)
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        assert self.momentum is not None
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)  # unbiased, as BatchNorm2d keeps it
        self.num_batches_tracked.add_(1)


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy (2015), algorithm 1, and its gradient, with the sums taken over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        mean, variance, count = _global_statistics(input, weight, world)
        output = F.batch_norm(input, mean, variance, weight, bias, training=False, eps=eps)
        ctx.save_for_backward(input, weight, mean, (variance + eps).rsqrt(), count)
        ctx.world = world
        ctx.mark_non_differentiable(mean, variance, count)
        return output, mean, variance, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        input, weight, mean, inverse_std, count = ctx.saved_tensors
        grad = grads[0]
        if input.is_contiguous(memory_format=torch.channels_last):
            grad = grad.contiguous(memory_format=torch.channels_last)
        _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
            grad, input, weight, None, None, mean, inverse_std, True, 0.0, [False, True, True]
        )
        grad_input = None
        if ctx.needs_input_grad[0]:
            # dx = w / std * (dy - mean(dy) - x_hat * mean(dy * x_hat)), written as scale * dy + slope * x + offset
            # so that it takes two passes over memory.
            mean_grad, mean_grad_xhat = ctx.world.sum(torch.cat([grad_bias, grad_weight])).div(count).chunk(2)
            scale = weight * inverse_std
            slope = -scale * inverse_std * mean_grad_xhat
            offset = -scale * mean_grad - slope * mean
            grad_input = torch.addcmul(_per_channel(offset), input, _per_channel(slope))
            grad_input = grad_input.addcmul_(grad, _per_channel(scale)).to(input.dtype)
        return grad_input, grad_weight, grad_bias, None, None


def _global_statistics(input: Tensor, weight: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Mean [channels], biased variance [channels] and number of values a channel [1], over all ranks."""
    unused = torch.zeros_like(weight)  # tells the kernel to keep its statistics in the weights' precision
    mean, variance = torch.batch_norm_update_stats(input, unused, unused.clone(), 0.0)
    count = torch.full((1,), input.numel() // input.shape[1], dtype=weight.dtype, device=weight.device)
    parts = world.gather(torch.cat([mean, variance, count]))  # [ranks, 2 * channels + 1]
    means, variances, counts = parts.split([len(mean), len(mean), 1], dim=1)
    total = counts.sum(0)
    mean = (means * counts).sum(0) / total
    # Chan et al. (1979): the variance within the ranks' batches, and that of their means.
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total


def _per_channel(values: Tensor) -> Tensor:
    return values[:, None, None]


def synchronise_batch_norm(network: nn.Module, world: World) -> None:
    """Replaces every BatchNorm2d inside `network` by one over all ranks; its parameters stay the same objects."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SyncBatchNorm2d(child, world))
