"""The report for the hurried, as one PNG: how the samples came to be, beside real images, and the curves."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

from dcgan_dist.reporting.charts import charts_of_run, charts_of_runs
from dcgan_dist.reporting.curves import as_png, draw_chart
from dcgan_dist.reporting.facts import facts_of
from dcgan_dist.reporting.page import evenly, labels_of
from dcgan_dist.reporting.pictures import read_picture
from dcgan_dist.reporting.read_run import RunRecord
from dcgan_dist.reporting.style import LIGHT

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from PIL.Image import Image

COLUMNS = 4
LONGEST_LINE = 170  # characters of the banner
LARGEST_PICTURE = 1100  # pixels; a cell of the figure has fewer


def draw_summary(runs: Sequence[RunRecord]) -> bytes:
    """The picture, as PNG."""
    from matplotlib.figure import Figure  # not pyplot: no window system is looked for

    labels = labels_of(runs)
    pictures = _of_one_run(runs[0]) if len(runs) == 1 else _of_runs(runs, labels)
    charts = (charts_of_run(runs[0]) if len(runs) == 1 else charts_of_runs(runs, labels))[: 2 * COLUMNS]
    picture_rows, chart_rows = -(-len(pictures) // COLUMNS), -(-len(charts) // COLUMNS)
    banner = _banner(runs, labels)
    heights = [0.5 + 0.22 * len(banner)] * bool(banner)
    heights += [3.6] * picture_rows + [2.7] * chart_rows or [1.0]
    figure = Figure(figsize=(13.4, sum(heights) + 0.9), layout="constrained", facecolor="white")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    figure.suptitle(_title(runs, labels), x=0.012, ha="left", fontsize=11, linespacing=1.5, color=LIGHT["ink"])
    cells = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    if banner:
        _write_banner(figure.add_subplot(cells[0, :]), banner)
    above = len(heights) - max(1, picture_rows + chart_rows)
    for index, (title, image) in enumerate(pictures):
        _show(figure.add_subplot(cells[above + index // COLUMNS, index % COLUMNS]), title, image)
    for index, chart in enumerate(charts):
        cell = cells[above + picture_rows + index // COLUMNS, index % COLUMNS]
        draw_chart(figure.add_subplot(cell), chart, runs[0].events if len(runs) == 1 else ())
    return as_png(figure)


def _banner(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[str]:
    """A line for every sign of collapse, with its run's name where there are several."""
    named = [("" if len(runs) == 1 else f"{label}: ", run) for label, run in zip(labels, runs, strict=True)]
    signs = [f"{name}{sign.kind.replace('_', ' ')}: {sign.text}" for name, run in named for sign in run.warnings]
    return [line for sign in signs for line in textwrap.wrap(sign.rstrip(": "), LONGEST_LINE)]


def _write_banner(axes: Axes, lines: Sequence[str]) -> None:
    text = "\n".join(("Signs of collapse: the samples are probably worthless", *lines))
    axes.set(facecolor=LIGHT["alarm"], xticks=[], yticks=[])
    for side, spine in axes.spines.items():
        spine.set(color=LIGHT["warn"], linewidth=6 if side == "left" else 1)
    axes.text(0.012, 0.5, text, transform=axes.transAxes, va="center", fontsize=10, linespacing=1.5, color=LIGHT["ink"])


def _title(runs: Sequence[RunRecord], labels: Sequence[str]) -> str:
    if len(runs) > 1:
        return "   ".join(f"{label} ({run.verdict})" for label, run in zip(labels, runs, strict=True))
    facts = [f"{fact.name.lower() if fact.name[1].islower() else fact.name} {fact.value}" for fact in facts_of(runs[0])]
    return f"{labels[0]}: {runs[0].verdict}\n" + "  ·  ".join(facts[:5])


def _of_one_run(run: RunRecord) -> list[tuple[str, Image]]:
    """Three moments of the run, and real images. The untrained generator is left out where there is better."""
    found = []
    drawn = [grid for grid in run.grids if grid.images_seen > 0] or run.grids
    for grid in evenly(drawn, COLUMNS - 1):
        if image := read_picture(grid.average or grid.generator):  # type: ignore[arg-type]
            found.append((f"{grid.images_seen:,} images", image))
    if run.real and (image := read_picture(run.real)):
        found.append(("real images", image))
    return found


def _of_runs(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[tuple[str, Image]]:
    """The last grid of each run, and real images."""
    found = []
    for run, label in zip(runs, labels, strict=True):
        if run.grids and (image := read_picture(run.grids[-1].average or run.grids[-1].generator)):  # type: ignore[arg-type]
            found.append((f"{label}, {run.grids[-1].images_seen:,} images", image))
    real = next((run.real for run in runs if run.real), None)
    if real and (image := read_picture(real)):
        found.append(("real images", image))
    return found


def _show(axes: Axes, title: str, image: Image) -> None:
    image.thumbnail((LARGEST_PICTURE, LARGEST_PICTURE))
    axes.imshow(image)
    axes.set_title(title, loc="left", fontsize=10, color=LIGHT["ink"])
    axes.axis("off")
