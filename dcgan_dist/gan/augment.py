"""Differentiable augmentation: colour, translation and cutout (Zhao et al. 2020, "DiffAugment", section 3).

The discriminator sees real and generated images only through it, in both updates, and the generator's gradient passes
through it. What is done to an image follows from the numbers given for it, so nothing here draws any.
"""

from __future__ import annotations

import torch
from torch import Tensor

NUMBERS = 7
"""How many uniform numbers an image takes: three for its colours, then a shift and a hole's centre on each axis."""

FARTHEST_SHIFT, HOLE = 1 / 8, 1 / 2
"""Shares of the image's size, as in the paper: how far it is moved at most, and the side of the square cut out."""


def augment(images: Tensor, numbers: Tensor | None) -> Tensor:
    """Changes images [n, 3, size, size], each by its row of `numbers`, [n, 7] in [0, 1); None: they stay as they are.

    What is moved in or cut out is 0, the middle of [-1, 1]. Computes in the numbers' type, float32 or float64; the
    result has the images' type, and its channels are last in memory.
    """
    if numbers is None:
        return images
    # Channel by channel in memory, means over channels and moves take half the time.
    planes = images.to(numbers.dtype, memory_format=torch.contiguous_format)
    rows, columns = (_along(images.shape[2], numbers[:, axis + 3 :: 2]) for axis in (0, 1))
    changed = _move_and_cut(_change_colours(planes, numbers[:, :3]), rows, columns)
    return changed.to(images.dtype, memory_format=torch.channels_last)


def _change_colours(images: Tensor, numbers: Tensor) -> Tensor:
    """Adds -0.5 to 0.5, scales differences between channels by 0 to 2, and those from the mean by 0.5 to 1.5."""
    brightness, saturation, contrast = numbers[:, :, None, None, None].unbind(1)
    images = images + (brightness - 0.5)
    grey = images.mean(1, keepdim=True)
    images = grey + (images - grey) * (2 * saturation)
    mean = images.mean((1, 2, 3), keepdim=True)
    return mean + (images - mean) * (contrast + 0.5)


def _along(size: int, numbers: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Translation and cutout along one axis, from two numbers an image [n, 2].

    Returns for each place [n, size] from which place it is taken, whether that lies within the image, and whether the
    hole covers it. Places go round at the edges, so that no two are taken from the same: the gradient is then a sum of
    single terms, the same in any order.
    """
    farthest, side = round(size * FARTHEST_SHIFT), round(size * HOLE)
    places = torch.arange(size, device=numbers.device)
    shift = (numbers[:, :1] * (2 * farthest + 1)).long() - farthest
    first = (numbers[:, 1:] * (size + 1 - side % 2)).long() - side // 2  # a centre may lie on the edge
    source = places - shift
    is_inside = (source >= 0) & (source < size)
    return source % size, is_inside, (places >= first) & (places < first + side)


def _move_and_cut(images: Tensor, rows: tuple[Tensor, ...], columns: tuple[Tensor, ...]) -> Tensor:
    """Takes each pixel from its source, and puts 0 where there is none or the hole is."""
    count, channels, _, width = images.shape
    (row, row_inside, row_cut), (column, column_inside, column_cut) = rows, columns
    source = row[:, :, None] * width + column[:, None, :]
    is_empty = ~(row_inside[:, :, None] & column_inside[:, None, :]) | (row_cut[:, :, None] & column_cut[:, None, :])
    moved = images.flatten(2).gather(2, source.view(count, 1, -1).expand(-1, channels, -1))
    return moved.view(images.shape).masked_fill(is_empty[:, None], 0)
