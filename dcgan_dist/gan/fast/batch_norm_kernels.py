# ruff: noqa: ANN001, ANN202
# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportIndexIssue=false, reportCallIssue=false
# pyright: reportGeneralTypeIssues=false, reportPossiblyUnboundVariable=false
# (Inside a kernel names stand for Triton's own kinds of values.)
"""Batch norm's arithmetic as Triton kernels, for GPUs; what each function computes is said in `batch_norm_plain`.

Maps are looked at as rows, one a pixel, of `channels` values each; a program works on a tile of some rows and channels.
Sums are kept in fp32 (fp64 for fp64) by every lane for itself, added up once a program, and the programs' sums by
another kernel: nothing is added atomically, and how the rows are divided depends on their number alone, so the result
has the same bits on every run and every card. TRITON_INTERPRET=1 runs the kernels on a CPU, as the tests do.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from dcgan_dist.gan.fast.batch_norm_plain import Norm, Running

TILE_ROWS, TILE_CHANNELS = 64, 64
MOST_PROGRAMS = 1024  # of a sum: enough to fill a large GPU several times over
OPTIONS = {"num_warps": 4, "enable_fp_fusion": True}  # the second was Triton's default up to 3.9


def measure(input: Tensor, parts: int, weight: Tensor) -> Tensor:
    """What is known of this rank's values: pieces [pieces, parts, 3, channels]."""
    shape = _Shape(input, parts)
    count, rows = shape.pieces()
    pieces = weight.new_empty(count, parts, 3, shape.channels)
    _measure[(count, shape.channel_tiles, parts)](input, pieces, rows, *shape.sizes, **shape.constants(weight))
    return pieces


def combine(pieces: Tensor, running: Running | None = None, out: Tensor | None = None) -> Tensor:
    """One piece out of all: [pieces, parts, 3, channels] to [parts, 3, channels], in `out` if given."""
    count, parts, _, channels = pieces.shape
    combined = torch.empty_like(pieces[0]) if out is None else out
    mean, variance, batches = (running.mean, running.variance, running.batches) if running else (combined,) * 3
    if running and running.momentum is None:
        batches.add_(parts)  # before the kernel, each of whose programs reads it
    _combine[(triton.cdiv(channels, 16),)](
        *(pieces, combined, mean, variance, batches, count, channels),
        PARTS=parts,
        TRACK=running is not None,
        MOMENTUM=running.momentum if running else None,
        PIECES=min(32, triton.next_power_of_2(count)),
        CHANNELS=16,
        **OPTIONS,
    )
    return combined


def normalise(input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """The activation of (input - mean) / std * weight + bias, in the precision and layout of `input`."""
    shape = _Shape(input, len(combined))
    output = torch.empty_like(input)
    _normalise[shape.tiles](
        *(input, output, combined, norm.weight, norm.bias), *shape.sizes, **shape.constants_of(norm)
    )
    return output


def gradient_sums(grad: Tensor, input: Tensor, combined: Tensor, norm: Norm) -> Tensor:
    """This rank's sums of dz and dz * x_hat: pieces [pieces, parts, 2, channels]."""
    shape = _Shape(input, len(combined))
    count, rows = shape.pieces()
    pieces = norm.weight.new_empty(count, shape.parts, 2, shape.channels)
    _gradient_sums[(count, shape.channel_tiles, shape.parts)](
        *(grad, input, pieces, combined, norm.weight, norm.bias, rows), *shape.sizes, **shape.constants_of(norm)
    )
    return pieces


def add_up(pieces: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """[pieces, parts, 2, channels] summed up for each part, [parts, 2, channels], and over all, [2, channels]."""
    count, parts, _, channels = pieces.shape
    sums, total = torch.empty_like(pieces[0]) if out is None else out, torch.empty_like(pieces[0, 0])
    _add_up[(triton.cdiv(2 * channels, 32),)](
        *(pieces, sums, total, count, 2 * channels),
        PARTS=parts,
        PIECES=min(32, triton.next_power_of_2(count)),
        VALUES=32,
        **OPTIONS,
    )
    return sums, total


def input_gradient(grad: Tensor, input: Tensor, combined: Tensor, sums: Tensor, norm: Norm) -> Tensor:
    """weight / std * (dz - mean(dz) - x_hat * mean(dz * x_hat)), from the `sums` of all ranks, [parts, 2, channels]."""
    shape = _Shape(input, len(combined))
    output = torch.empty_like(input)
    _input_gradient[shape.tiles](
        *(grad, input, output, combined, sums, norm.weight, norm.bias), *shape.sizes, **shape.constants_of(norm)
    )
    return output


class _Shape:
    """How maps are divided into tiles and pieces. They must be dense, in either memory layout."""

    def __init__(self, maps: Tensor, parts: int) -> None:
        images, self.channels, height, width = maps.shape
        self.parts, self.pixels = parts, height * width
        self.rows = images // parts * self.pixels
        self.channels_last = maps.is_contiguous(memory_format=torch.channels_last)
        self.tile_channels = min(TILE_CHANNELS, triton.next_power_of_2(self.channels))
        self.channel_tiles = triton.cdiv(self.channels, self.tile_channels)
        self.sizes = self.rows, self.channels, self.pixels

    @property
    def tiles(self) -> tuple[int, int, int]:
        """One program for each tile of each part."""
        return triton.cdiv(self.rows, TILE_ROWS), self.channel_tiles, self.parts

    def pieces(self) -> tuple[int, int]:
        """Into how many pieces the rows of a part are divided for a sum, and the rows of a piece."""
        most = max(1, MOST_PROGRAMS // (self.channel_tiles * self.parts))
        tiles = triton.cdiv(triton.cdiv(self.rows, TILE_ROWS), most)  # of one piece
        return triton.cdiv(self.rows, tiles * TILE_ROWS), tiles * TILE_ROWS

    def constants(self, weight: Tensor) -> dict[str, Any]:
        """What kernels are compiled for; Triton would round numbers that it gets otherwise to fp32."""
        return {
            "CHANNELS_LAST": self.channels_last,
            "PRECISION": tl.float64 if weight.dtype == torch.float64 else tl.float32,
            "ROWS": TILE_ROWS,
            "CHANNELS": self.tile_channels,
            **OPTIONS,
        }

    def constants_of(self, norm: Norm) -> dict[str, Any]:
        """Constants for kernels that also use the layer's epsilon and slope."""
        return {"EPS": norm.eps, "SLOPE": norm.slope, **self.constants(norm.weight)}


@triton.jit
def _places(rows, channels, num_channels, pixels, CHANNELS_LAST: tl.constexpr):
    """Where the values of a tile lie, counted from the first of the maps: [rows, channels], beyond 2^31 too."""
    rows = rows.to(tl.int64)
    if CHANNELS_LAST:
        return rows[:, None] * num_channels + channels[None, :]
    images = rows // pixels
    return (images * (num_channels - 1) * pixels + rows)[:, None] + channels[None, :].to(tl.int64) * pixels


@triton.jit
def _statistics(combined, part, channels, known, num_channels, EPS: tl.constexpr):
    """Count, mean and 1 / std of the channels of a tile."""
    at = combined + part * 3 * num_channels + channels
    count = tl.load(at, known, 1.0)
    mean = tl.load(at + num_channels, known, 0.0)
    variance = tl.load(at + 2 * num_channels, known, 1.0) / count
    return count, mean, 1 / tl.sqrt(variance + EPS)


@triton.jit
def _measure(
    input,
    pieces,
    rows_of_piece,
    num_rows,
    num_channels,
    pixels,
    CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    piece, part = tl.program_id(0), tl.program_id(2)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < num_channels
    first = piece * rows_of_piece
    last = tl.minimum(first + rows_of_piece, num_rows)
    # The mean of the first tile: near enough to the mean of all that squares of differences from it lose no digits.
    rows = first + tl.arange(0, ROWS)
    inside = (rows < last)[:, None] & known[None, :]
    places = _places(part * num_rows + rows, channels, num_channels, pixels, CHANNELS_LAST)
    values = tl.load(input + places, inside, 0.0).to(PRECISION)
    origin = tl.sum(values, 0) / tl.minimum(ROWS, last - first)
    sums = tl.zeros([ROWS, CHANNELS], PRECISION)
    squares = tl.zeros([ROWS, CHANNELS], PRECISION)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < last)[:, None] & known[None, :]
        places = _places(part * num_rows + rows, channels, num_channels, pixels, CHANNELS_LAST)
        values = tl.load(input + places, inside, 0.0).to(PRECISION)
        offsets = tl.where(inside, values - origin[None, :], 0.0)
        sums += offsets
        squares += offsets * offsets
    count = (last - first).to(PRECISION)
    total = tl.sum(sums, 0)
    deviations = tl.maximum(tl.sum(squares, 0) - total * total / count, 0.0)
    at = pieces + (piece * tl.num_programs(2) + part) * 3 * num_channels + channels
    tl.store(at, tl.zeros([CHANNELS], PRECISION) + count, known)
    tl.store(at + num_channels, origin + total / count, known)
    tl.store(at + 2 * num_channels, deviations, known)


@triton.jit
def _combine(
    pieces,
    combined,
    running_mean,
    running_variance,
    batches,
    num_pieces,
    num_channels,
    PARTS: tl.constexpr,
    TRACK: tl.constexpr,
    MOMENTUM: tl.constexpr,
    PIECES: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    channels = tl.program_id(0) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < num_channels
    if TRACK:
        tracked_mean = tl.load(running_mean + channels, known, 0.0)
        tracked_variance = tl.load(running_variance + channels, known, 0.0)
    for part in tl.static_range(PARTS):
        at = pieces + part * 3 * num_channels + channels
        origin = tl.load(at + num_channels, known, 0.0)
        counts = tl.zeros([PIECES, CHANNELS], pieces.dtype.element_ty)
        offsets = tl.zeros([PIECES, CHANNELS], pieces.dtype.element_ty)
        for start in range(0, num_pieces, PIECES):
            which = start + tl.arange(0, PIECES)
            inside = (which < num_pieces)[:, None] & known[None, :]
            here = at[None, :] + which[:, None] * (PARTS * 3) * num_channels
            count = tl.load(here, inside, 0.0)
            counts += count
            offsets += count * (tl.load(here + num_channels, inside, 0.0) - origin[None, :])
        total = tl.maximum(tl.sum(counts, 0), 1.0)
        offset = tl.sum(offsets, 0) / total
        deviations = tl.zeros([PIECES, CHANNELS], pieces.dtype.element_ty)
        for start in range(0, num_pieces, PIECES):
            which = start + tl.arange(0, PIECES)
            inside = (which < num_pieces)[:, None] & known[None, :]
            here = at[None, :] + which[:, None] * (PARTS * 3) * num_channels
            distance = tl.load(here + num_channels, inside, 0.0) - origin[None, :] - offset[None, :]
            deviations += tl.load(here + 2 * num_channels, inside, 0.0)
            deviations += tl.load(here, inside, 0.0) * distance * distance
        mean, deviation = origin + offset, tl.sum(deviations, 0)
        to = combined + part * 3 * num_channels + channels
        tl.store(to, total, known)
        tl.store(to + num_channels, mean, known)
        tl.store(to + 2 * num_channels, deviation, known)
        if TRACK:
            if MOMENTUM is None:  # all batches count alike
                share = 1.0 / (tl.load(batches) - (PARTS - 1 - part)).to(mean.dtype)
            else:
                share = tl.full([CHANNELS], MOMENTUM, mean.dtype)  # a bare number would become fp32
            unbiased = deviation / tl.maximum(total - 1, 1.0)  # as BatchNorm2d keeps it
            tracked_mean += share * (mean - tracked_mean)
            tracked_variance += share * (unbiased - tracked_variance)
    if TRACK:
        tl.store(running_mean + channels, tracked_mean, known)
        tl.store(running_variance + channels, tracked_variance, known)
        if MOMENTUM is not None and tl.program_id(0) == 0:
            tl.store(batches, tl.load(batches) + PARTS)


@triton.jit
def _normalise(
    input,
    output,
    combined,
    weight,
    bias,
    num_rows,
    num_channels,
    pixels,
    EPS: tl.constexpr,
    SLOPE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.program_id(2)
    known = channels < num_channels
    inside = (rows < num_rows)[:, None] & known[None, :]
    places = _places(part * num_rows + rows, channels, num_channels, pixels, CHANNELS_LAST)
    _, mean, inverse_std = _statistics(combined, part, channels, known, num_channels, EPS)
    factor = inverse_std * tl.load(weight + channels, known, 0.0)
    values = tl.load(input + places, inside, 0.0).to(PRECISION)
    z = (values - mean[None, :]) * factor[None, :] + tl.load(bias + channels, known, 0.0)[None, :]
    if SLOPE != 1.0:
        z = tl.where(z > 0, z, SLOPE * z)
    tl.store(output + places, z.to(output.dtype.element_ty), inside)


@triton.jit
def _tile_of_gradient(
    grad,
    input,
    places,
    inside,
    mean,
    inverse_std,
    weight,
    bias,
    SLOPE: tl.constexpr,
    PRECISION: tl.constexpr,
):
    """dz and x_hat of a tile; dz is the gradient behind the activation, which is computed again, not kept."""
    x_hat = (tl.load(input + places, inside, 0.0).to(PRECISION) - mean[None, :]) * inverse_std[None, :]
    dz = tl.load(grad + places, inside, 0.0).to(PRECISION)
    if SLOPE != 1.0:
        dz = tl.where(x_hat * weight[None, :] + bias[None, :] > 0, dz, SLOPE * dz)
    return dz, x_hat


@triton.jit
def _gradient_sums(
    grad,
    input,
    pieces,
    combined,
    weight,
    bias,
    rows_of_piece,
    num_rows,
    num_channels,
    pixels,
    EPS: tl.constexpr,
    SLOPE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    piece, part = tl.program_id(0), tl.program_id(2)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    known = channels < num_channels
    first = piece * rows_of_piece
    last = tl.minimum(first + rows_of_piece, num_rows)
    _, mean, inverse_std = _statistics(combined, part, channels, known, num_channels, EPS)
    weights, biases = tl.load(weight + channels, known, 0.0), tl.load(bias + channels, known, 0.0)
    of_bias = tl.zeros([ROWS, CHANNELS], PRECISION)
    of_weight = tl.zeros([ROWS, CHANNELS], PRECISION)
    for start in range(first, last, ROWS):
        rows = start + tl.arange(0, ROWS)
        inside = (rows < last)[:, None] & known[None, :]
        places = _places(part * num_rows + rows, channels, num_channels, pixels, CHANNELS_LAST)
        dz, x_hat = _tile_of_gradient(grad, input, places, inside, mean, inverse_std, weights, biases, SLOPE, PRECISION)
        of_bias += dz
        of_weight += dz * x_hat
    at = pieces + (piece * tl.num_programs(2) + part) * 2 * num_channels + channels
    tl.store(at, tl.sum(of_bias, 0), known)
    tl.store(at + num_channels, tl.sum(of_weight, 0), known)


@triton.jit
def _add_up(
    pieces, sums, total, num_pieces, num_values, PARTS: tl.constexpr, PIECES: tl.constexpr, VALUES: tl.constexpr
):
    values = tl.program_id(0) * VALUES + tl.arange(0, VALUES)
    known = values < num_values
    over_all = tl.zeros([VALUES], pieces.dtype.element_ty)
    for part in tl.static_range(PARTS):
        found = tl.zeros([PIECES, VALUES], pieces.dtype.element_ty)
        for start in range(0, num_pieces, PIECES):
            which = start + tl.arange(0, PIECES)
            inside = (which < num_pieces)[:, None] & known[None, :]
            found += tl.load(pieces + (which[:, None] * PARTS + part) * num_values + values[None, :], inside, 0.0)
        of_part = tl.sum(found, 0)
        tl.store(sums + part * num_values + values, of_part, known)
        over_all += of_part
    tl.store(total + values, over_all, known)


@triton.jit
def _input_gradient(
    grad,
    input,
    output,
    combined,
    sums,
    weight,
    bias,
    num_rows,
    num_channels,
    pixels,
    EPS: tl.constexpr,
    SLOPE: tl.constexpr,
    CHANNELS_LAST: tl.constexpr,
    PRECISION: tl.constexpr,
    ROWS: tl.constexpr,
    CHANNELS: tl.constexpr,
):
    rows = tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    channels = tl.program_id(1) * CHANNELS + tl.arange(0, CHANNELS)
    part = tl.program_id(2)
    known = channels < num_channels
    inside = (rows < num_rows)[:, None] & known[None, :]
    places = _places(part * num_rows + rows, channels, num_channels, pixels, CHANNELS_LAST)
    count, mean, inverse_std = _statistics(combined, part, channels, known, num_channels, EPS)
    weights, biases = tl.load(weight + channels, known, 0.0), tl.load(bias + channels, known, 0.0)
    dz, x_hat = _tile_of_gradient(grad, input, places, inside, mean, inverse_std, weights, biases, SLOPE, PRECISION)
    at = sums + part * 2 * num_channels + channels
    mean_dz = tl.load(at, known, 0.0) / count
    mean_dz_x_hat = tl.load(at + num_channels, known, 0.0) / count
    dx = (dz - mean_dz[None, :] - x_hat * mean_dz_x_hat[None, :]) * (weights * inverse_std)[None, :]
    tl.store(output + places, dx.to(output.dtype.element_ty), inside)
