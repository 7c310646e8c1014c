"""Batch norm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm refuses CPU tensors and makes the host wait once a layer; this one does neither. Keys of the
state dict are BatchNorm2d's, so a checkpoint does not know how many ranks wrote it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from dcgan_dist.distributed.world import World


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the whole batch, however it is divided over the ranks.

    With `parts` above one, that many equal parts of a batch, one behind the other, have statistics of their own, as if
    they had come one by one. In evaluation mode it is BatchNorm2d. Whatever `parts` is, one collective in the forward
    pass and one in the backward pass.
    """

    def __init__(self, layer: nn.BatchNorm2d, world: World) -> None:
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self.world = world
        self.parts = 1
        # The same tensors, not copies: optimizers may hold them already.
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [n, channels, height, width]; every rank must call it, each with at least one image a part."""
        if not self.training:
            return super().forward(input)
        output, means, variances, count = _Normalise.apply(
            input, self.weight, self.bias, self.eps, self.parts, self.world
        )
        for mean, variance in zip(means, variances, strict=True):
            self._track(mean, variance, count)
        return output

    @torch.no_grad()
    def _track(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        self.num_batches_tracked.add_(1)
        # Without a momentum all batches count alike, as in BatchNorm2d.
        share = 1 / self.num_batches_tracked.to(mean.dtype) if self.momentum is None else self.momentum
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(variance * (count / (count - 1)), share)  # unbiased, as BatchNorm2d keeps it


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy (2015), algorithm 1, and its gradient, with the sums taken over all ranks."""

    @staticmethod
    def forward(
        ctx: Any, input: Tensor, weight: Tensor, bias: Tensor, eps: float, parts: int, world: World
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        means, variances, count = _global_statistics(input.chunk(parts), weight, world)
        output = torch.empty_like(input)
        for part, mean, variance, normalised in zip(
            input.chunk(parts), means, variances, output.chunk(parts), strict=True
        ):
            _scale_and_shift(part, mean, variance, eps, weight, bias, out=normalised)
        ctx.save_for_backward(input, weight, means, (variances + eps).rsqrt(), count)
        ctx.parts, ctx.world = parts, world
        ctx.mark_non_differentiable(means, variances, count)
        return output, means, variances, count

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        input, weight, means, inverse_stds, count = ctx.saved_tensors
        grad = grads[0]
        if input.is_contiguous(memory_format=torch.channels_last):
            grad = grad.contiguous(memory_format=torch.channels_last)
        inputs, part_grads = input.chunk(ctx.parts), grad.chunk(ctx.parts)
        sums = torch.stack(
            [
                _parameter_gradients(part_grad, part, weight, mean, inverse_std)
                for part_grad, part, mean, inverse_std in zip(part_grads, inputs, means, inverse_stds, strict=True)
            ]
        )  # [parts, 2, channels]: of dy and of dy * x_hat
        grad_bias, grad_weight = sums.sum(0).unbind()
        grad_input = None
        if ctx.needs_input_grad[0]:
            averages = ctx.world.sum(sums).div(count)
            grad_input = torch.empty_like(input)
            zero, one = torch.zeros_like(weight), torch.ones_like(weight)
            for out, part_grad, part, mean, inverse_std, (mean_grad, mean_grad_xhat) in zip(
                grad_input.chunk(ctx.parts), part_grads, inputs, means, inverse_stds, averages, strict=True
            ):
                # dx = w / std * (dy - mean(dy) - x_hat * mean(dy * x_hat))
                slope = -inverse_std * mean_grad_xhat
                centred = torch.empty_like(part)
                _scale_and_shift(part, zero, one, 0.0, slope, -mean_grad - slope * mean, out=centred)
                _scale_and_shift(centred.add_(part_grad), zero, one, 0.0, weight * inverse_std, zero, out=out)
        return grad_input, grad_weight, grad_bias, None, None, None


def _scale_and_shift(
    input: Tensor, mean: Tensor, variance: Tensor, eps: float, weight: Tensor, bias: Tensor, out: Tensor
) -> None:
    """out = (input - mean) / std * weight + bias in one pass; in half precision only the result is rounded.

    With values a channel in fp32 and maps in bf16, torch's ordinary operators take twenty times as long on a CPU.
    """
    unused = weight.new_empty(0)
    torch.ops.aten.native_batch_norm.out(
        input, weight, bias, mean, variance, False, 0.0, eps, out=out, save_mean=unused, save_invstd=unused
    )


def _parameter_gradients(grad: Tensor, input: Tensor, weight: Tensor, mean: Tensor, inverse_std: Tensor) -> Tensor:
    """The gradients of bias and weight over one part, in one pass: [2, channels]."""
    _, grad_weight, grad_bias = torch.ops.aten.native_batch_norm_backward(
        grad, input, weight, None, None, mean, inverse_std, True, 0.0, [False, True, True]
    )
    return torch.stack([grad_bias, grad_weight])


def _global_statistics(parts: tuple[Tensor, ...], weight: Tensor, world: World) -> tuple[Tensor, Tensor, Tensor]:
    """Over all ranks and for each part: means and biased variances [parts, channels], values a channel [1]."""
    unused = torch.zeros_like(weight)  # tells the kernel to keep its statistics in the weights' precision
    own = [torch.stack(torch.batch_norm_update_stats(part, unused, unused.clone(), 0.0)) for part in parts]
    count = torch.full((1,), parts[0].numel() // parts[0].shape[1], dtype=weight.dtype, device=weight.device)
    everyone = world.gather(torch.cat([torch.stack(own).flatten(), count]))  # [ranks, parts * 2 * channels + 1]
    counts = everyone[:, -1, None, None]  # [ranks, 1, 1]
    statistics = everyone[:, :-1].view(world.size, len(parts), 2, -1)
    means, variances = statistics[:, :, 0], statistics[:, :, 1]  # [ranks, parts, channels]
    total = counts.sum()
    mean = (means * counts).sum(0) / total
    # Chan et al. (1979): the variance of the whole from those of its pieces, without subtracting large numbers.
    variance = ((variances + (means - mean).square()) * counts).sum(0) / total
    return mean, variance, total[None]


def synchronise_batch_norm(network: nn.Module, world: World) -> None:
    """Replaces every BatchNorm2d inside `network` by one over all ranks; its parameters stay the same objects."""
    for parent in list(network.modules()):
        for name, child in parent.named_children():
            if type(child) is nn.BatchNorm2d:
                setattr(parent, name, SyncBatchNorm2d(child, world))
