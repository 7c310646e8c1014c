"""Puts a run's grids side by side: real images, the untrained generator, half way, the end.

python docs/make_picture.py runs/demo docs/images/demo.png
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS, ROWS, SCALE, MARGIN, CAPTION = 6, 5, 2, 12, 22


def main(run: Path, out: Path) -> None:
    """Cuts the same corner out of four grids and writes them as one PNG."""
    grids = sorted((run / "samples" / "ema").glob("*.png"), key=lambda path: int(path.stem))
    chosen = {
        "real drawings": run / "samples" / "real.png",
        "untrained": grids[0],
        f"{int(grids[len(grids) // 2].stem):,} images seen": grids[len(grids) // 2],
        f"{int(grids[-1].stem):,} images seen": grids[-1],
    }
    corners = [_corner(Image.open(path)) for path in chosen.values()]
    width, height = corners[0].size
    picture = Image.new("RGB", (len(corners) * (width + MARGIN) - MARGIN, height + CAPTION), "white")
    draw = ImageDraw.Draw(picture)
    for place, (title, corner) in enumerate(zip(chosen, corners, strict=True)):
        left = place * (width + MARGIN)
        draw.text((left + 2, 4), title, fill="black", font_size=14)
        picture.paste(corner, (left, CAPTION))
    picture.save(out, optimize=True)


def _corner(grid: Image.Image) -> Image.Image:
    tile = (grid.width - 2) // 8
    corner = grid.crop((0, 0, COLUMNS * tile + 2, ROWS * tile + 2))
    return corner.resize((corner.width * SCALE, corner.height * SCALE), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
