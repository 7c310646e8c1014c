# ruff: noqa: ANN001, ANN202
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# (Inside a kernel names stand for Triton's own kinds of values.)
"""What happens to images and latents besides convolutions, as Triton kernels for GPUs; each is one launch.

A convolution of three channels wastes most of a tensor core, and cuDNN copies its input to pad it to eight. So images
go through the layers at their side as blocks of 2x2 pixels: 12 channels, padded to 16 by the kernel that makes them.
Images lie in memory with their channels last.
"""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from dcgan_dist.base import counter_random
from dcgan_dist.gan.fast.batch_norm_kernels import OPTIONS

BLOCK_CHANNELS = 16  # of which the last four are zero
TILE = 1024
_INCREMENT = tl.constexpr(counter_random.INCREMENT)
_FIRST_MULTIPLIER = tl.constexpr(counter_random.FIRST_MULTIPLIER)
_SECOND_MULTIPLIER = tl.constexpr(counter_random.SECOND_MULTIPLIER)
_ANGLE = tl.constexpr(2 * math.pi / 2**32)


def to_blocks(images: Tensor) -> Tensor:
    """Images [n, 3, size, size] as [n, 16, size / 2 + 1, size / 2 + 1], each pixel once, with a border of zeros.

    Block (i, j) holds the pixels of rows 2 i - 1 and 2 i and columns 2 j - 1 and 2 j, row by row, three colours each.
    """
    images = images.contiguous(memory_format=torch.channels_last)
    count, _, size, _ = images.shape
    side = size // 2 + 1
    blocks = _empty(count, BLOCK_CHANNELS, side, images.dtype, images.device)
    tiles = triton.cdiv(side * side * BLOCK_CHANNELS, TILE)
    _to_blocks[(count, tiles)](images, blocks, SIZE=size, SIDE=side, TILE=TILE, **OPTIONS)
    return blocks


def from_blocks(blocks: Tensor) -> Tensor:
    """The images of which `blocks` are made: the inverse of `to_blocks`, and its gradient."""
    blocks = blocks.contiguous(memory_format=torch.channels_last)
    count, _, side, _ = blocks.shape
    size = 2 * (side - 1)
    images = _empty(count, 3, size, blocks.dtype, blocks.device)
    tiles = triton.cdiv(size * size * 3, TILE)
    _from_blocks[(count, tiles)](blocks, images, SIZE=size, SIDE=side, TILE=TILE, **OPTIONS)
    return images


def join(pixels: Tensor, fakes: Tensor) -> Tensor:
    """Pixels, uint8 [n, 3, size, size], scaled to [-1, 1], and images [m, 3, size, size] behind them: [n + m, ...]."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    fakes = fakes.contiguous(memory_format=torch.channels_last)
    both = _empty(len(pixels) + len(fakes), 3, fakes.shape[-1], fakes.dtype, fakes.device)
    precision = tl.float64 if fakes.dtype == torch.float64 else tl.float32
    _join[(triton.cdiv(both.numel(), TILE),)](
        pixels, fakes, both, pixels.numel(), both.numel(), PRECISION=precision, TILE=TILE, **OPTIONS
    )
    return both


def take(cache: Tensor, orders: Tensor, position: Tensor, first: int, count: int, flip_key: int | None) -> Tensor:
    """Images out of `cache`, uint8 [samples, size, size, 3]: uint8 [count, size, size, 3].

    Image k is the one that `orders` [2 samples] has at (position + first + k) mod (2 samples). With the key of a stream
    of random numbers (`stream_key`), it is mirrored if the number at position + first + k is negative.
    """
    samples, size = cache.shape[:2]
    images = cache.new_empty(count, size, size, 3)
    tiles = triton.cdiv(size * size * 3, TILE)
    _take[(count, tiles)](
        *(cache, orders, position, images, first, samples, flip_key or 0),
        FLIP=flip_key is not None,
        SIZE=size,
        TILE=TILE,
        **OPTIONS,
    )
    return images


def draw_normal(position: Tensor, first: int, key: int, count: int, size: int, dtype: torch.dtype) -> Tensor:
    """Rows position + first and on of the stream with this key, [count, size], as `counter_random.normal` has them."""
    latents = torch.empty(count, size, dtype=dtype, device=position.device)
    pairs = -(-size // 2)
    _draw_normal[(triton.cdiv(count * pairs, 256),)](
        *(latents, position, first, key, count * pairs), SIZE=size, PAIRS=pairs, TILE=256, **OPTIONS
    )
    return latents


def _empty(count: int, channels: int, size: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    shape = (count, channels, size, size)
    return torch.empty(shape, dtype=dtype, device=device, memory_format=torch.channels_last)


@triton.jit
def _to_blocks(images, blocks, SIZE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)  # within the blocks of an image
    channel, column, row = place % 16, place // 16 % SIDE, place // (16 * SIDE)
    y = 2 * row - 1 + channel // 6
    x = 2 * column - 1 + channel // 3 % 2
    inside = (channel < 12) & (y >= 0) & (y < SIZE) & (x >= 0) & (x < SIZE)
    value = tl.load(images + image * (SIZE * SIZE * 3) + (y * SIZE + x) * 3 + channel % 3, inside, 0.0)
    tl.store(blocks + image * (SIDE * SIDE * 16) + place, value, row < SIDE)


@triton.jit
def _from_blocks(blocks, images, SIZE: tl.constexpr, SIDE: tl.constexpr, TILE: tl.constexpr):
    image = tl.program_id(0).to(tl.int64)
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)  # within the pixels of an image
    colour, x, y = place % 3, place // 3 % SIZE + 1, place // (3 * SIZE) + 1
    channel = (y % 2) * 6 + (x % 2) * 3 + colour
    inside = place < SIZE * SIZE * 3
    value = tl.load(blocks + image * (SIDE * SIDE * 16) + (y // 2 * SIDE + x // 2) * 16 + channel, inside)
    tl.store(images + image * (SIZE * SIZE * 3) + place, value, inside)


@triton.jit
def _join(pixels, fakes, both, num_real, num_both, PRECISION: tl.constexpr, TILE: tl.constexpr):
    place = tl.program_id(0).to(tl.int64) * TILE + tl.arange(0, TILE)
    is_real = place < num_real
    real = tl.load(pixels + place, is_real, 0).to(PRECISION) * (2 / 255) - 1
    fake = tl.load(fakes + place - num_real, (place >= num_real) & (place < num_both), 0.0)
    tl.store(both + place, tl.where(is_real, real.to(fake.dtype), fake), place < num_both)


@triton.jit
def _take(
    cache,
    orders,
    position,
    images,
    first,
    samples,
    flip_key,
    FLIP: tl.constexpr,
    SIZE: tl.constexpr,
    TILE: tl.constexpr,
):
    image = tl.program_id(0).to(tl.int64)
    at = tl.load(position) + first + image
    sample = tl.load(orders + at % (2 * samples))
    place = tl.program_id(1) * TILE + tl.arange(0, TILE)
    source = place
    if FLIP:
        x = place // 3 % SIZE
        mirrored = _random_bits(at, flip_key) < 0
        source = tl.where(mirrored, place + (SIZE - 1 - 2 * x) * 3, place)
    inside = place < SIZE * SIZE * 3
    value = tl.load(cache + sample * (SIZE * SIZE * 3) + source, inside)
    tl.store(images + image * (SIZE * SIZE * 3) + place, value, inside)


@triton.jit
def _draw_normal(latents, position, first, key, num_pairs, SIZE: tl.constexpr, PAIRS: tl.constexpr, TILE: tl.constexpr):
    place = tl.program_id(0) * TILE + tl.arange(0, TILE)
    row, pair = place // PAIRS, place % PAIRS
    bits = _random_bits((tl.load(position) + first) * PAIRS + place, key)
    high, low = _shifted(bits, 32), bits & 0xFFFFFFFF
    radius = tl.sqrt(tl.log((high.to(tl.float64) + 0.5) * (1 / 2**32)) * -2)
    angle = low.to(tl.float64) * _ANGLE
    known = place < num_pairs
    kind = latents.dtype.element_ty
    tl.store(latents + row * SIZE + pair, (radius * tl.cos(angle)).to(kind), known)
    tl.store(latents + row * SIZE + PAIRS + pair, (radius * tl.sin(angle)).to(kind), known & (pair + PAIRS < SIZE))


@triton.jit
def _random_bits(place, key):
    """Number `place` of the stream with this key, int64: `counter_random.words`."""
    bits = (place + 1) * _INCREMENT + key
    bits = (bits ^ _shifted(bits, 30)) * _FIRST_MULTIPLIER
    bits = (bits ^ _shifted(bits, 27)) * _SECOND_MULTIPLIER
    return bits ^ _shifted(bits, 31)


@triton.jit
def _shifted(bits, places: tl.constexpr):
    """Shifts right, filling with zeros."""
    return (bits.to(tl.uint64, bitcast=True) >> places).to(tl.int64, bitcast=True)
