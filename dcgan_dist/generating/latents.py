"""Latents by position: independent ones, cut-off ones, and walks from one to another. All float64, on the CPU."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import normal, words
from dcgan_dist.data.classes import Classes

LatentsAt = Callable[[int, int], Tensor]
"""(first, count) to the latents at positions `first` to `first + count - 1`: [count, latent_size + classes]."""

_CPU = torch.device("cpu")


def independent(seed: int, size: int, truncation: float | None = None) -> LatentsAt:
    """Draws from N(0, 1), or with `truncation` T from N(0, 1) cut off at -T and T (Brock et al. 2019, section 3.1).

    There the values beyond T are drawn again; here every value is mapped to its quantile of the cut-off distribution,
    which has the same result in distribution and leaves each latent close to what it is without truncation.
    """

    def at(first: int, count: int) -> Tensor:
        latents = normal(seed, "generated latents", first, count, size, _CPU)
        return latents if truncation is None else _cut_off(latents, truncation)

    return at


def with_classes(latents: LatentsAt, classes: Classes) -> LatentsAt:
    """The same latents, each with the conditions of one of the images of `classes` behind it."""
    return lambda first, count: classes.beside(latents(first, count), first)


def _cut_off(latents: Tensor, limit: float) -> Tensor:
    below = 0.5 * math.erfc(limit / math.sqrt(2))  # probability of a value under -limit
    quantile = below + (1 - 2 * below) * torch.special.ndtr(latents)
    return torch.special.ndtri(quantile).clamp_(-limit, limit)


def slerp(start: Tensor, end: Tensor, fraction: Tensor) -> Tensor:
    """Goes from `start` to `end`, both [n, size], along a great circle: `fraction` [n] from 0 to 1 of the way.

    A straight line would pass near the origin, where a Gaussian in many dimensions has no mass (White 2016, "Sampling
    Generative Networks", section 2.1). The direction turns evenly, and the length goes evenly from one to the other.
    """
    along = fraction[:, None].to(start.dtype)
    lengths = start.norm(dim=1, keepdim=True), end.norm(dim=1, keepdim=True)
    one, other = start / lengths[0], end / lengths[1]
    angle = (one * other).sum(1, keepdim=True).clamp(-1, 1).acos()
    turned = (((1 - along) * angle).sin() * one + (along * angle).sin() * other) / angle.sin()
    direction = torch.where(angle.sin() < 1e-6, one, turned)
    return direction * torch.lerp(*lengths, along)


def _between(start: Tensor, end: Tensor, fraction: Tensor, size: int | None) -> Tensor:
    """Goes along great circles with the first `size` columns, and evenly with the conditions behind them."""
    size = start.shape[1] if size is None else size
    shown = torch.lerp(start[:, size:], end[:, size:], fraction[:, None].to(start.dtype))
    return torch.cat([slerp(start[:, :size], end[:, :size], fraction), shown], dim=1)


def rows_of_walks(latents: LatentsAt, steps: int, size: int | None = None) -> LatentsAt:
    """Walk w goes from latent 2w to latent 2w + 1 in `steps` images, ends included, one walk after the other.

    `size`: columns before the conditions; None: all.
    """

    def at(first: int, count: int) -> Tensor:
        position = torch.arange(first, first + count)
        walk, step = position // steps, position % steps
        fraction = step.double() / max(steps - 1, 1)
        return _between(_rows(latents, 2 * walk), _rows(latents, 2 * walk + 1), fraction, size)

    return at


def frames_of_loops(latents: LatentsAt, tiles: int, steps: int, stops: int, size: int | None = None) -> LatentsAt:
    """Frame after frame of `tiles` images each; tile t walks round through `stops` latents and back to its first.

    `steps`: frames from one latent to the next. A loop has `steps * stops` frames. `size`: as for `rows_of_walks`.
    """

    def at(first: int, count: int) -> Tensor:
        position = torch.arange(first, first + count)
        frame, tile = position // tiles, position % tiles
        leg, step = frame // steps % stops, frame % steps
        start, end = _rows(latents, tile * stops + leg), _rows(latents, tile * stops + (leg + 1) % stops)
        return _between(start, end, step.double() / steps, size)

    return at


def listed(table: Tensor) -> LatentsAt:
    """The rows of `table` [n, size]; zeros beyond its end."""

    def at(first: int, count: int) -> Tensor:
        rows = table[first : first + count]
        return torch.cat([rows, rows.new_zeros(count - len(rows), table.shape[1])])

    return at


def picked(latents: LatentsAt, indices: list[int]) -> Tensor:
    """The latents at these positions: [n, size]."""
    return _rows(latents, torch.tensor(indices))


def noise_around(latent: Tensor, seed: int, first: int, count: int, scale: float) -> Tensor:
    """`count` copies of `latent` [size], each plus uniform noise in [-scale, scale]: [count, size]."""
    size = len(latent)
    uniform = words(seed, "arithmetic noise", first * size, count * size, _CPU).double().div_(2.0**63)
    return latent + scale * uniform.view(count, size)


def _rows(latents: LatentsAt, positions: Tensor) -> Tensor:
    distinct, inverse = positions.unique(return_inverse=True)
    return torch.cat([latents(position, 1) for position in distinct.tolist()])[inverse]
