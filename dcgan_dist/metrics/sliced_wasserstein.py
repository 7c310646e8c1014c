"""Sliced Wasserstein distance between patches of Laplacian levels (Karras et al. 2018, section 5). Needs no weights.

Each level of the pyramid shows structure of one size: the smallest the faces' layout, the largest their texture.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from dcgan_dist.base.counter_random import normal, words
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.workforce import Workforce

PATCH = 7  # pixels
PATCHES_PER_IMAGE = 128
DIRECTIONS = 4 * 128
SMALLEST_LEVEL = 16  # pixels
SCALE = 1000.0  # as the paper's tables show it
DIRECTIONS_AT_ONCE = 16  # bounds the memory that projections take
IMAGES_AT_ONCE = 256

# The binomial filter of Burt and Adelson (1983); its fivefold outer product blurs an image before it is halved.
_BINOMIAL = (1 / 16, 4 / 16, 6 / 16, 4 / 16, 1 / 16)


def levels(image_size: int) -> list[int]:
    """Sizes of the pyramid's levels in pixels, from the images' own down to 16."""
    return [image_size >> halvings for halvings in range(16) if image_size >> halvings >= SMALLEST_LEVEL]


def sliced_wasserstein(one: Tensor, other: Tensor, seed: int, workforce: Workforce) -> dict[str, float]:
    """The distance of each level, times 1000, by its name (`32px`), the same on every rank.

    one, other: uint8 [n, 3, size, size], the same n, on every rank. The ranks share the directions out among them.
    """
    world, sizes, parts = workforce.world, levels(one.shape[-1]), DIRECTIONS // DIRECTIONS_AT_ONCE
    distances = torch.zeros(len(sizes), parts, dtype=torch.float64, device=world.device)
    first, count = share(len(sizes) * parts, world.rank, world.size)
    for level in range(len(sizes)):
        mine = [task % parts for task in range(first, first + count) if task // parts == level]
        if mine:
            sides = [_descriptors(images, level, side, seed) for side, images in enumerate((one, other))]
            distance = partial(_distance, *sides, level, seed)
            with ThreadPoolExecutor(workforce.workers) as pool:
                distances[level, mine] = torch.stack(list(pool.map(distance, mine)))
    means = world.sum(distances).mean(dim=1).mul(SCALE).tolist()
    return {f"{size}px": mean for size, mean in zip(sizes, means, strict=True)}


def laplacian_pyramid(images: Tensor, count: int) -> list[Tensor]:
    """`count` levels of images [n, c, size, size], each half as large as the one before; the last is what is left."""
    pyramid = [images]
    for _ in range(count - 1):
        pyramid.append(_blur(pyramid[-1])[:, :, ::2, ::2])
    for level in range(count - 1):
        pyramid[level] = pyramid[level] - _enlarge(pyramid[level + 1])
    return pyramid


def patch_corners(level: int, side: int, first: int, count: int, size: int, seed: int, device: torch.device) -> Tensor:
    """Top and left of the patches of images `first` to `first + count - 1`: int64 [count * 128, 2]."""
    # Levels and sides lie 2^40 numbers apart in one stream: room for four thousand million images.
    start = ((2 * level + side) << 40) + first * PATCHES_PER_IMAGE
    bits = words(seed, "evaluation patches", start, count * PATCHES_PER_IMAGE, device)
    places = size - PATCH + 1
    return torch.stack([(bits >> 32 & 0xFFFFFFFF) % places, (bits & 0xFFFFFFFF) % places], dim=1)


def _descriptors(images: Tensor, level: int, side: int, seed: int) -> Tensor:
    """Every patch of one level as a vector, each colour with mean 0 and deviation 1: float32 [n * 128, 147]."""
    parts = []
    for first in range(0, len(images), IMAGES_AT_ONCE):
        batch = images[first : first + IMAGES_AT_ONCE].float()
        pixels = laplacian_pyramid(batch, len(levels(batch.shape[-1])))[level]
        size, count = pixels.shape[-1], len(pixels)
        corners = patch_corners(level, side, first, count, size, seed, images.device)
        image = torch.arange(count, device=images.device).repeat_interleave(PATCHES_PER_IMAGE)
        windows = pixels.unfold(2, PATCH, 1).unfold(3, PATCH, 1).permute(0, 2, 3, 1, 4, 5)
        parts.append(windows[image, corners[:, 0], corners[:, 1]])  # [count * 128, 3, 7, 7]
    return _normalised(torch.cat(parts)).flatten(1)


def _normalised(patches: Tensor) -> Tensor:
    """Patches [n, 3, 7, 7] with each colour's mean over all of them taken away, and divided by its deviation."""
    for colour in range(patches.shape[1]):
        values = patches[:, colour]
        mean = values.mean(dtype=torch.float64)
        deviation = (values.double() - mean).square_().mean().sqrt()
        # Images of one colour all over have levels without any deviation; they stay zeros.
        patches[:, colour] = (values - mean.float()) / deviation.clamp_min(1e-12).float()
    return patches


def _directions(level: int, part: int, seed: int, device: torch.device) -> Tensor:
    """Unit vectors [16, 147] the patches are projected on."""
    first = level * DIRECTIONS + part * DIRECTIONS_AT_ONCE
    vectors = normal(seed, "evaluation directions", first, DIRECTIONS_AT_ONCE, 3 * PATCH * PATCH, device)
    return (vectors / vectors.norm(dim=1, keepdim=True)).float()


def _distance(one: Tensor, other: Tensor, level: int, seed: int, part: int) -> Tensor:
    """Mean distance between two sets of patches [n, 147], projected on 16 directions and sorted: float64, a scalar."""
    directions = _directions(level, part, seed, one.device)
    projected, others = (_sorted(directions @ patches.T) for patches in (one, other))
    return (projected - others).abs_().mean(dtype=torch.float64)


def _sorted(rows: Tensor) -> Tensor:
    """Each row in ascending order. On a CPU by NumPy, which is eight times as fast as torch."""
    return rows.sort(dim=1).values if rows.is_cuda else torch.from_numpy(np.sort(rows.numpy(), axis=1))


def _blur(images: Tensor) -> Tensor:
    return _filtered(images, 1.0)


def _enlarge(images: Tensor) -> Tensor:
    """Twice as large: zeros between the pixels, then the same filter, four times as strong."""
    n, channels, height, width = images.shape
    spread = images.new_zeros(n, channels, 2 * height, 2 * width)
    spread[:, :, ::2, ::2] = images
    return _filtered(spread, 4.0)


def _filtered(images: Tensor, gain: float) -> Tensor:
    """Each colour by itself through the binomial filter; beyond the edges the image is mirrored."""
    line = torch.tensor(_BINOMIAL, dtype=images.dtype, device=images.device)
    kernel = (gain * torch.outer(line, line)).expand(images.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(images, (2, 2, 2, 2), mode="reflect"), kernel, groups=images.shape[1])
