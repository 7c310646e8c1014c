"""Batch norm's arithmetic in torch's public operators: the definition that the faster forms must equal.

The batch may consist of several equal parts, one behind the other, each with statistics of its own. What is known of a
channel's values is a piece: their count, their mean and the sum of their squared deviations from it. Pieces of any
sizes combine without subtracting large numbers (Chan, Golub and LeVeque 1979), so the pieces of a batch and the batches
of all ranks are put together in the same way.

Behind the normalisation stands an activation: z where z > 0, else `slope` * z. A slope of 1 is none, 0 is ReLU.

All functions take maps [n, channels, height, width] in any precision and memory layout and compute in that of `weight`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Norm(NamedTuple):
    """A layer: weight and bias, [channels] each, what is added to the variance, and the activation's slope below 0."""

    weight: Tensor
    bias: Tensor
    eps: float
    slope: float = 1.0


@dataclass(frozen=True)
class Running:
    """The running statistics of a layer: [channels] each, changed in place."""

    mean: Tensor
    variance: Tensor
    batches: Tensor
    """How many batches were tracked, int64 []."""
    momentum: float | None
    """None: all batches count alike."""

    def track(self, combined: Tensor) -> None:
        """Moves the statistics towards those of each part of [parts, 3, channels], one after the other."""
        self.batches.add_(len(combined))
        for left, (count, mean, deviations) in zip(range(len(combined) - 1, -1, -1), combined, strict=True):
            share = 1 / (self.batches - left).to(mean.dtype) if self.momentum is None else self.momentum
            self.mean.lerp_(mean, share)
            self.variance.lerp_(deviations / (count - 1).clamp(min=1), share)  # unbiased, as BatchNorm2d keeps it


def measure(input: Tensor, parts: int, weight: Tensor) -> Tensor:
    """What is known of this rank's values: pieces [pieces, parts, 3, channels]."""
    values = _split(input, parts, weight)
    variance, mean = torch.var_mean(values, dim=(1, 3, 4), correction=0)
    count = torch.full_like(mean, values[0].numel() // values.shape[2])
    return torch.stack([count, mean, variance * count], dim=1)[None]


def combine(pieces: Tensor, running: Running | None = None, out: Tensor | None = None) -> Tensor:
    """One piece out of all: [pieces, parts, 3, channels] to [parts, 3, channels], in `out` if given.

    Updates `running`, if given.
    """
    counts, means, deviations = pieces.unbind(2)  # [pieces, parts, channels] each
    count = counts.sum(0)
    mean = means[0] + ((means - means[0]) * counts).sum(0) / count
    combined = torch.stack([count, mean, (deviations + counts * (means - mean).square()).sum(0)], dim=1, out=out)
    if running:
        running.track(combined)
    return combined


def normalise(input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """The activation of (input - mean) / std * weight + bias, in the precision and layout of `input`."""
    z = _normalised(input, combined, norm) * _wide(norm.weight) + _wide(norm.bias)
    return _join(torch.where(z > 0, z, norm.slope * z), like=input)


def gradient_sums(grad: Tensor, input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """This rank's sums of dz and dz * x_hat, the gradients of bias and weight: [pieces, parts, 2, channels]."""
    x_hat = _normalised(input, combined, norm)
    dz = _through_activation(grad, x_hat, norm)
    return torch.stack([dz.sum((1, 3, 4)), (dz * x_hat).sum((1, 3, 4))], dim=1)[None]


def add_up(pieces: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """[pieces, parts, 2, channels] summed up for each part, [parts, 2, channels], and over all, [2, channels].

    The first of them in `out`, if given.
    """
    sums = torch.sum(pieces, 0, out=out)
    return sums, sums.sum(0)


def input_gradient(grad: Tensor, input: Tensor, combined: Tensor, sums: Tensor, norm: Norm) -> Tensor:
    """weight / std * (dz - mean(dz) - x_hat * mean(dz * x_hat)), from the `sums` of all ranks, [parts, 2, channels]."""
    x_hat = _normalised(input, combined, norm)
    dz = _through_activation(grad, x_hat, norm)
    count = combined[:, 0]
    mean_dz, mean_dz_x_hat = (_wide(total / count) for total in sums.unbind(1))
    inverse_std = (combined[:, 2] / count + norm.eps).rsqrt()
    return _join((dz - mean_dz - x_hat * mean_dz_x_hat) * _wide(norm.weight * inverse_std), like=input)


def _split(maps: Tensor, parts: int, weight: Tensor) -> Tensor:
    """[n, channels, height, width] to [parts, n / parts, channels, height, width], in the precision of `weight`."""
    return maps.to(weight.dtype).unflatten(0, (parts, -1))


def _join(values: Tensor, like: Tensor) -> Tensor:
    """The parts as one batch, in the precision and memory layout of `like`."""
    return torch.empty_like(like).copy_(values.flatten(0, 1))


def _wide(channels: Tensor) -> Tensor:
    """[channels] or [parts, channels] as it meets maps that are split into parts."""
    return channels.view(-1, 1, channels.shape[-1], 1, 1)


def _normalised(input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    count, mean, deviations = combined.unbind(1)
    return (_split(input, len(combined), norm.weight) - _wide(mean)) * _wide((deviations / count + norm.eps).rsqrt())


def _through_activation(grad: Tensor, x_hat: Tensor, norm: Norm) -> Tensor:
    dz = _split(grad, len(x_hat), norm.weight)
    return torch.where(x_hat * _wide(norm.weight) + _wide(norm.bias) > 0, dz, norm.slope * dz)
