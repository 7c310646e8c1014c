"""Puts grids side by side: those of a run from its beginning to its end, or those at the end of several runs.

python docs/make_picture.py docs/images/demo.png runs/demo
python docs/make_picture.py docs/images/recipes.png "default=runs/study/paper/seed-0" "best=runs/study/best/seed-0"
"""

from __future__ import annotations

import sys
from pathlib import Path

from PIL import Image, ImageDraw

COLUMNS, ROWS, MARGIN, CAPTION = 6, 5, 12, 22
WIDTH = 400  # of a corner at least, in pixels


def main(out: Path, runs: list[str]) -> None:
    """Cuts the same corner out of each grid and writes them as one PNG."""
    chosen = _over_a_run(Path(runs[0])) if len(runs) == 1 else _of_runs(runs)
    corners = [_corner(Image.open(path)) for path in chosen.values()]
    width, height = corners[0].size
    picture = Image.new("RGB", (len(corners) * (width + MARGIN) - MARGIN, height + CAPTION), "white")
    draw = ImageDraw.Draw(picture)
    for place, (title, corner) in enumerate(zip(chosen, corners, strict=True)):
        left = place * (width + MARGIN)
        draw.text((left + 2, 4), title, fill="black", font_size=14)
        picture.paste(corner, (left, CAPTION))
    picture.save(out, optimize=True)


def _over_a_run(run: Path) -> dict[str, Path]:
    grids = _grids(run)
    halfway = grids[len(grids) // 2]
    return {
        "real drawings": run / "samples" / "real.png",
        "untrained": grids[0],
        f"{int(halfway.stem):,} images seen": halfway,
        f"{int(grids[-1].stem):,} images seen": grids[-1],
    }


def _of_runs(runs: list[str]) -> dict[str, Path]:
    folders = {title: Path(folder) for title, _, folder in (run.partition("=") for run in runs)}
    real = next(iter(folders.values())) / "samples" / "real.png"
    return {"real drawings": real} | {title: _grids(folder)[-1] for title, folder in folders.items()}


def _grids(run: Path) -> list[Path]:
    return sorted((run / "samples" / "ema").glob("*.png"), key=lambda path: int(path.stem))


def _corner(grid: Image.Image) -> Image.Image:
    tile = (grid.width - 2) // 8
    corner = grid.crop((0, 0, COLUMNS * tile + 2, ROWS * tile + 2))
    scale = -(-WIDTH // (corner.width + 2))
    return corner.resize((corner.width * scale, corner.height * scale), Image.Resampling.NEAREST)


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
