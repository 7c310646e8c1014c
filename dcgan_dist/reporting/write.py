"""The page and the pictures on disk: at the end of a run, and when somebody asks for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from dcgan_dist.base.files import atomic_write, write_text
from dcgan_dist.reporting.page import render_page
from dcgan_dist.reporting.read_run import RunRecord
from dcgan_dist.reporting.summary_picture import draw_summary


def write_report(runs: Sequence[RunRecord], page: Path) -> tuple[Path, Path]:
    """Writes the page, and the picture beside it; their paths. Raises OSError if that cannot be."""
    picture = page.with_suffix(".png")
    write_text(page, render_page(runs))
    content = draw_summary(runs)
    with atomic_write(picture) as file:
        file.write(content)
    return page, picture
