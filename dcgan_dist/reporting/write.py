"""The page and the pictures on disk: at the end of a run, and when somebody asks for them."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Sequence
from pathlib import Path

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.files import atomic_write, write_text
from dcgan_dist.reporting.curves import draw_curves
from dcgan_dist.reporting.page import render_page
from dcgan_dist.reporting.read_run import RunRecord, read_run
from dcgan_dist.reporting.summary_picture import draw_summary
from dcgan_dist.run.folder import RunFolder

log = logging.getLogger(__name__)


def write_report(runs: Sequence[RunRecord], page: Path) -> tuple[Path, Path]:
    """Writes the page, and the picture beside it; their paths. Raises OSError if that cannot be."""
    picture = page.with_suffix(".png")
    write_text(page, render_page(runs))
    content = draw_summary(runs)
    with atomic_write(picture) as file:
        file.write(content)
    return page, picture


def try_to_report(folder: RunFolder) -> None:
    """The curves and the report of a run that has just ended."""
    with _going_on_without(folder.curves):
        draw_curves(read_run(folder.path), folder.curves)
    with _going_on_without(folder.report):
        write_report([read_run(folder.path)], folder.report)


@contextlib.contextmanager
def _going_on_without(path: Path) -> Iterator[None]:
    """That a picture cannot be drawn is no reason to call a finished run failed."""
    try:
        yield
    except Exception as error:
        log.warning("could not write %s (%s)", path, in_one_line(error))
