"""Images side by side on one picture."""

from __future__ import annotations

import math
from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from dcgan_dist.base.files import atomic_write

BORDER = 2  # white pixels around each image of a grid


def columns_of(count: int) -> int:
    """Images in a row of a grid of `count` that is about as wide as it is high."""
    return math.ceil(math.sqrt(count))


def lay_out(pixels: Tensor, columns: int | None = None) -> Tensor:
    """Images, uint8 [n, 3, height, width], side by side on white, row by row: uint8 [3, all rows, all columns].

    torchvision's make_grid does the same, but importing torchvision takes as long as importing torch.
    """
    count, _, height, width = pixels.shape
    columns = min(count, columns or columns_of(count))
    rows = math.ceil(count / columns)
    cells = pixels.new_full((rows * columns, 3, height + BORDER, width + BORDER), 255)
    cells[:count, :, BORDER:, BORDER:] = pixels
    cells = cells.unflatten(0, (rows, columns)).permute(2, 0, 3, 1, 4)  # [3, rows, height, columns, width]
    return F.pad(cells.flatten(3).flatten(1, 2), (0, BORDER, 0, BORDER), value=255)


def save_grid(pixels: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images, uint8 [n, 3, height, width], as one PNG, whole or not at all; by default about as wide as high."""
    grid = lay_out(pixels.cpu(), columns)
    with atomic_write(path) as file:
        Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy()).save(file, format="PNG", compress_level=3)
