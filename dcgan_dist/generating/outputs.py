"""Outputs for images: an array, a folder of PNGs or a grid, each written whole or not at all.

Images come in portions, so that no rank needs room for all of them where the format allows it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import atomic_write, sync_folder, temporary_name
from dcgan_dist.base.grid import save_grid
from dcgan_dist.distributed.world import World

Write = Callable[[Tensor], object]
"""Takes the next images, uint8 [n, 3, size, size] on the CPU."""


def save(portions: Iterator[Tensor], output: AbstractContextManager[Write], world: World) -> None:
    """Writes all portions on rank 0; every rank calls it. Raises UserError, on every rank, if the disk is full."""
    with ExitStack() as opened:
        write = world.on_main(opened.enter_context, output)
        for portion in portions:
            world.together(_write_next, write, portion)
        world.together(opened.close)


def _write_next(write: Write | None, portion: Tensor) -> None:
    if write:
        write(portion.cpu())


def prepare_place(out: Path, world: World) -> None:
    """Makes the folder above `out`. Raises UserError, on every rank, if `out` cannot become what its name says."""
    world.on_main(_prepare, out)


def _prepare(out: Path) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    if out.suffix and out.is_dir():
        raise UserError(f"--out {out}: is a folder; give the name of a file")
    if not out.suffix and out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; a folder for PNGs is expected, or a name that ends in .png or .npz")
    if not out.suffix and out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: the folder is not empty; choose another, or remove it")
    if not os.access(out.parent, os.W_OK):
        raise UserError(f"--out {out}: {out.parent} may not be written to; choose another place")


@contextlib.contextmanager
def npz_file(path: Path, num_images: int, size: int) -> Iterator[Write]:
    """One uint8 array [num_images, size, size, 3] under the key arr_0, as tools for FID read it; not compressed."""
    member = zipfile.ZipInfo("arr_0.npy", date_time=(1980, 1, 1, 0, 0, 0))  # the same images, the same bytes
    header = {"descr": "|u1", "fortran_order": False, "shape": (num_images, size, size, 3)}
    with (
        atomic_write(path) as file,
        zipfile.ZipFile(file, "w") as archive,
        archive.open(member, "w", force_zip64=True) as array,
    ):
        np.lib.format.write_array_header_1_0(array, header)
        yield lambda portion: array.write(_channels_last(portion).tobytes())


@contextlib.contextmanager
def png_folder(path: Path) -> Iterator[Write]:
    """PNGs 000000.png, 000001.png, ... in a folder that takes its name when all are written."""
    temporary, count = temporary_name(path), 0
    temporary.mkdir()

    def write(portion: Tensor) -> None:
        nonlocal count
        for image in _channels_last(portion):
            Image.fromarray(image).save(temporary / f"{count:06d}.png")
            count += 1

    try:
        yield write
        temporary.replace(path)  # over an empty folder too
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    sync_folder(path.parent)


@contextlib.contextmanager
def grid_file(path: Path, columns: int | None = None, times: int = 1) -> Iterator[Write]:
    """One PNG of images `times` as large, `columns` a row, by default about as wide as it is high.

    Holds all images in memory.
    """
    portions: list[Tensor] = []
    yield portions.append
    pixels = torch.cat(portions).repeat_interleave(times, dim=2).repeat_interleave(times, dim=3)
    save_grid(pixels, path, columns)


def _channels_last(portion: Tensor) -> np.ndarray:
    return portion.permute(0, 2, 3, 1).contiguous().numpy()
