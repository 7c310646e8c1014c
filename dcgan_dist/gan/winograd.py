"""Winograd's minimal filtering for the convolutions that halve and double maps: 9 products in place of 16.

A 4x4 kernel that moves by two pixels is a 2x2 kernel g over blocks b of 2x2 pixels. Along one axis, three blocks of the
large map make two pixels y of the small one, with three products m and not four:

    y0 = b0 g0 + b1 g1 = m0 + m1        m0 = (b0 - b1) g0
    y1 = b1 g0 + b2 g1 = m1 - m2        m1 = b1 (g0 + g1),  m2 = (b1 - b2) g1

A map is cut into t x t tiles of three by three blocks; neighbours share a row or a column of blocks. Along both axes a
tile takes nine products and not 16, and each of the nine, over all tiles and channels, is one matrix product. The sums
before and after them are linear, so gradients go through the same sums, transposed, in the opposite order.

Hence six functions: `from_...` makes the nine factors of a tensor, and `to_...`, its transpose, makes a tensor of nine
products; for large maps [n, d, 4 t, 4 t], small maps [n, c, 2 t, 2 t] and weights [c, d, 4, 4]. The factors of large
maps take 2.25 times their memory. Half precision rounds factors and products as well, so an output's error is up to
three times that of an ordinary convolution.

Winograd (1980), "Arithmetic complexity of computations"; Lavin and Gray (2016), "Fast algorithms for convolutional
neural networks", in whose notation this is F(2x2, 2x2), over blocks in place of pixels.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

IMAGES_AT_ONCE = 32  # with 256 channels of 8x8 pixels a megabyte; more, or far fewer, take longer


def from_large(maps: Tensor) -> Tensor:
    """Maps [n, d, 4 t, 4 t] to b0 - b1, b1 and b1 - b2 along both axes: [9, n t t, 4 d]."""
    n, d, size, _ = maps.shape
    t = size // 4
    factors = maps.new_empty(3, 3, n, t, t, 2, 2, d)  # two axes each: the nine, tiles of an image, pixels of a block
    for images, places in zip(maps.split(IMAGES_AT_ONCE), factors.split(IMAGES_AT_ONCE, dim=2), strict=True):
        framed = F.pad(images.permute(0, 2, 3, 1), [0, 0, 1, 1, 1, 1])  # the convolution's padding fills the blocks
        blocks = framed.unflatten(2, (-1, 2)).unflatten(1, (-1, 2))  # [n, 2 t + 1, 2, 2 t + 1, 2, d]
        rows = maps.new_empty(3, len(images), t, 2, 2 * t + 1, 2, d)
        _difference(blocks.movedim(1, 0), out=rows.movedim(2, 1))
        _difference(rows.movedim(4, 0), out=places.permute(1, 4, 0, 2, 3, 5, 6, 7))
    return factors.view(9, -1, 4 * d)


def to_large(products: Tensor, n: int, size: int) -> Tensor:
    """`from_large` transposed: products [9, n t t, 4 d] to maps [n, d, size, size], of size 4 t."""
    t, d = size // 4, products.shape[-1] // 4
    maps = products.new_empty(n, size, size, d)
    tiles = products.view(3, 3, n, t, t, 2, 2, d)
    for part, images in zip(tiles.split(IMAGES_AT_ONCE, dim=2), maps.split(IMAGES_AT_ONCE), strict=True):
        rows = maps.new_empty(3, len(images), t, 2, 2 * t + 1, 2, d)
        blocks = maps.new_empty(len(images), 2 * t + 1, 2, 2 * t + 1, 2, d)
        _difference_back(part.permute(1, 4, 0, 2, 3, 5, 6, 7), out=rows.movedim(4, 0))
        _difference_back(rows.movedim(2, 1), out=blocks.movedim(1, 0))
        images.copy_(blocks.flatten(3, 4).flatten(1, 2)[:, 1:-1, 1:-1])
    return maps.permute(0, 3, 1, 2)


def from_small(maps: Tensor) -> Tensor:
    """`to_small` transposed: maps [n, c, 2 t, 2 t] to factors [9, n t t, c]."""
    n, c, size, _ = maps.shape
    t = size // 2
    factors = maps.new_empty(3, 3, n, t, t, c)
    pixels = maps.permute(0, 2, 3, 1).unflatten(2, (t, 2)).unflatten(1, (t, 2))  # [n, t, 2, t, 2, c]
    for images, places in zip(pixels.split(IMAGES_AT_ONCE), factors.split(IMAGES_AT_ONCE, dim=2), strict=True):
        rows = maps.new_empty(3, len(images), t, t, 2, c)
        _sum_back(images.movedim(2, 0), out=rows)
        _sum_back(rows.movedim(4, 0), out=places.transpose(0, 1))
    return factors.view(9, -1, c)


def to_small(products: Tensor, n: int, size: int) -> Tensor:
    """Products [9, n t t, c] to m0 + m1 and m1 - m2 along both axes: [n, c, size, size], of size 2 t."""
    t, c = size // 2, products.shape[-1]
    maps = products.new_empty(n, t, 2, t, 2, c)
    tiles = products.view(3, 3, n, t, t, c)
    for part, images in zip(tiles.split(IMAGES_AT_ONCE, dim=2), maps.split(IMAGES_AT_ONCE), strict=True):
        rows = maps.new_empty(2, 3, len(images), t, t, c)
        _sum(part, out=rows)
        _sum(rows.transpose(0, 1), out=images.permute(4, 2, 0, 1, 3, 5))
    return maps.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def from_weight(weight: Tensor, dtype: torch.dtype) -> Tensor:
    """Weights [c, d, 4, 4] to g0, g0 + g1 and g1 along both axes, in `dtype`: [9, c, 4 d]."""
    c, d, *_ = weight.shape
    factors = weight.new_empty(3, 3, c, 2, 2, d, dtype=dtype)
    halves = weight.permute(0, 2, 3, 1).unflatten(2, (2, 2)).unflatten(1, (2, 2)).permute(1, 3, 0, 2, 4, 5)
    for places, row in zip(factors, (halves[0], halves[0] + halves[1], halves[1]), strict=True):
        places[0], places[2] = row
        torch.add(*row, out=places[1])  # added up before it is rounded
    return factors.view(9, c, 4 * d)


def to_weight(products: Tensor, dtype: torch.dtype) -> Tensor:
    """`from_weight` transposed, in `dtype`: products [9, c, 4 d] to weights [c, d, 4, 4]."""
    _, c, width = products.shape
    first, middle, last = products.view(3, 3, c, 2, 2, -1).to(dtype)
    weight = first.new_empty(c, 2, 2, 2, 2, width // 4)
    halves = weight.permute(1, 3, 0, 2, 4, 5)
    for places, row in zip(halves, (first + middle, middle + last), strict=True):
        torch.add(row[0], row[1], out=places[0])
        torch.add(row[1], row[2], out=places[1])
    return weight.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


def _difference(blocks: Tensor, out: Tensor) -> None:
    """Along one axis, blocks [2 t + 1, ...] to b0 - b1, b1 and b1 - b2 of each tile: [3, t, ...]."""
    even, odd = blocks[0::2], blocks[1::2]
    torch.sub(even[:-1], odd, out=out[0])
    out[1] = odd
    torch.sub(odd, even[1:], out=out[2])


def _difference_back(products: Tensor, out: Tensor) -> None:
    """`_difference` transposed: [3, t, ...] to [2 t + 1, ...]."""
    first, middle, last = products
    even, odd = out[0::2], out[1::2]
    torch.sub(middle, first, out=odd)
    odd += last
    even[0] = first[0]
    torch.sub(first[1:], last[:-1], out=even[1:-1])
    torch.neg(last[-1], out=even[-1])


def _sum(products: Tensor, out: Tensor) -> None:
    """Along one axis, [m0, m1, m2] to [m0 + m1, m1 - m2]."""
    torch.add(products[0], products[1], out=out[0])
    torch.sub(products[1], products[2], out=out[1])


def _sum_back(pixels: Tensor, out: Tensor) -> None:
    """`_sum` transposed: [2, ...] to [3, ...]."""
    out[0] = pixels[0]
    torch.add(pixels[0], pixels[1], out=out[1])
    torch.neg(pixels[1], out=out[2])
