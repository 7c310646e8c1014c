"""Figures for readers: images enlarged enough to be seen, on a white sheet, with a word above them."""

from __future__ import annotations

from pathlib import Path

from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from dcgan_dist.base.files import atomic_write

WANTED_TILE = 96
GAP, CAPTION, MARGIN = 4, 22, 8


def enlargement(image_size: int) -> int:
    """How many times as large an image of this size is easy to see."""
    return max(1, round(WANTED_TILE / image_size))


def enlarged(pixels: Tensor, times: int) -> Image.Image:
    """An image, uint8 [3, height, width], so many times as large."""
    image = Image.fromarray(pixels.permute(1, 2, 0).contiguous().cpu().numpy())
    return image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)


class Sheet:
    """A white page of columns and rows, which may be fractions, each as wide as an enlarged image."""

    def __init__(self, columns: float, rows: float, image_size: int) -> None:
        self._times = enlargement(image_size)
        self._pitch = image_size * self._times + GAP
        width, height = (round(count * self._pitch) - GAP + 2 * MARGIN for count in (columns, rows))
        self._page = Image.new("RGB", (width, height + CAPTION), "white")

    def place(self, pixels: Tensor, column: float, row: float) -> None:
        """Places an image, uint8 [3, size, size], at a column and row."""
        self._page.paste(enlarged(pixels, self._times), self._at(column, row))

    def caption(self, text: str, column: float, columns: float) -> None:
        """Writes above the first row, in the middle of so many columns, as small as it must be."""
        left, width = self._at(column, 0)[0], columns * self._pitch - GAP
        size = 15.0
        while size > 7 and ImageFont.load_default(size).getlength(text) > width:
            size -= 1
        self._draw.text((left + width / 2, MARGIN + CAPTION / 2 - 3), text, "black", ImageFont.load_default(size), "mm")

    def sign(self, text: str, column: float, row: float, columns: float = 0.5) -> None:
        """Writes a large sign in the middle of so many columns of one row."""
        left, top = self._at(column, row)
        x, y = left + (columns * self._pitch - GAP) / 2, top + (self._pitch - GAP) / 2
        if text == "-":  # a hyphen is short and the font has no minus
            self._draw.line((x - self._pitch / 12, y, x + self._pitch / 12, y), "black", 2)
        else:
            self._draw.text((x, y), text, "black", ImageFont.load_default(self._pitch / 3), "mm")

    def save(self, path: Path) -> None:
        """Writes the page as a PNG, whole or not at all."""
        with atomic_write(path) as file:
            self._page.save(file, format="PNG")

    @property
    def _draw(self) -> ImageDraw.ImageDraw:
        return ImageDraw.Draw(self._page)

    def _at(self, column: float, row: float) -> tuple[int, int]:
        return MARGIN + round(column * self._pitch), MARGIN + CAPTION + round(row * self._pitch)
