"""The report for the hurried, as one PNG: how the samples came to be, beside real images, and the curves."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from dcgan_dist.reporting.charts import Chart, charts_of_run, charts_of_runs
from dcgan_dist.reporting.facts import facts_of
from dcgan_dist.reporting.page import evenly, labels_of
from dcgan_dist.reporting.pictures import read_picture
from dcgan_dist.reporting.plot import short
from dcgan_dist.reporting.read_run import RunRecord

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

COLUMNS = 4
LONGEST_LINE = 170  # characters of the banner
LARGEST_PICTURE = 1100  # pixels; a cell of the figure has fewer
COLOURS = ("#0072b2", "#d55e00", "#008a66", "#b0528f", "#8a6d00", "#444b54")
DASHES = ("-", "--", ":", "-.", (0, (1, 2)), "-")
INK, QUIET, RULE = "#16191d", "#5c6570", "#e3e7ec"
WARN, ALARM = "#8a5a00", "#fff4dc"


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
    figure.suptitle(_title(runs, labels), x=0.012, ha="left", fontsize=11, linespacing=1.5, color=INK)
    cells = figure.add_gridspec(len(heights), COLUMNS, height_ratios=heights)
    if banner:
        _write_banner(figure.add_subplot(cells[0, :]), banner)
    above = len(heights) - max(1, picture_rows + chart_rows)
    for index, (title, image) in enumerate(pictures):
        _show(figure.add_subplot(cells[above + index // COLUMNS, index % COLUMNS]), title, image)
    for index, chart in enumerate(charts):
        _plot(figure.add_subplot(cells[above + picture_rows + index // COLUMNS, index % COLUMNS]), chart)
    return _png(figure)


def _banner(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[str]:
    """A line for every sign of collapse, with its run's name where there are several."""
    named = [("" if len(runs) == 1 else f"{label}: ", run) for label, run in zip(labels, runs, strict=True)]
    signs = [f"{name}{sign.kind.replace('_', ' ')}: {sign.text}" for name, run in named for sign in run.warnings]
    return [line for sign in signs for line in textwrap.wrap(sign.rstrip(": "), LONGEST_LINE)]


def _write_banner(axes: Axes, lines: Sequence[str]) -> None:
    text = "\n".join(("Signs of collapse: the samples are probably worthless", *lines))
    axes.set(facecolor=ALARM, xticks=[], yticks=[])
    for side, spine in axes.spines.items():
        spine.set(color=WARN, linewidth=6 if side == "left" else 1)
    axes.text(0.012, 0.5, text, transform=axes.transAxes, va="center", fontsize=10, linespacing=1.5, color=INK)


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
    axes.set_title(title, loc="left", fontsize=10, color=INK)
    axes.axis("off")


def _plot(axes: Axes, chart: Chart) -> None:
    for curve in chart.curves:
        xs, ys = zip(*curve.points, strict=True)
        style: Any = DASHES[curve.style % len(DASHES)]
        marker = "o" if len(xs) < 3 else None
        colour = COLOURS[curve.style % len(COLOURS)]
        axes.plot(xs, ys, label=curve.label, color=colour, linestyle=style, linewidth=1.4, marker=marker, markersize=3)
    axes.set_title(chart.title, loc="left", fontsize=10, color=INK)
    axes.set_xlabel("images seen", fontsize=8, color=QUIET)
    axes.set_ylabel(chart.unit, fontsize=8, color=QUIET)
    axes.set_ylim(bottom=min(0.0, axes.get_ylim()[0]) if axes.dataLim.ymin < 0 else 0, top=chart.top)
    axes.set_xlim(left=0)
    right = axes.get_xlim()[1]
    axes.xaxis.set_major_locator(_locator())
    axes.xaxis.set_major_formatter(lambda value, _: short(value, right))
    axes.tick_params(labelsize=8, colors=QUIET, length=0)
    axes.grid(color=RULE)
    axes.spines[:].set_visible(False)
    if len(chart.curves) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=INK)


def _locator() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4, steps=[1, 2, 2.5, 5, 10])


def _png(figure: Figure) -> bytes:
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
