"""Charts as pictures: curves.png, and the curves of report.png."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from dcgan_dist.base.files import atomic_write
from dcgan_dist.reporting.charts import Chart, Curve, charts_of_run
from dcgan_dist.reporting.plot import Plot, lay_out
from dcgan_dist.reporting.read_run import Event, RunRecord
from dcgan_dist.reporting.style import LIGHT, curve_style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

COLUMNS = 3


def draw_curves(run: RunRecord, out: Path) -> None:
    """Draws all charts of a run into the PNG `out`; does nothing if there are no figures yet."""
    from matplotlib.figure import Figure  # not pyplot: no window system is looked for

    charts = charts_of_run(run)
    if not charts:
        return
    rows = -(-len(charts) // COLUMNS)
    figure = Figure(figsize=(12, 3.2 * rows), layout="constrained")
    figure.get_layout_engine().set(w_pad=0.12, h_pad=0.1)  # type: ignore[union-attr]
    cells = figure.add_gridspec(rows, COLUMNS)
    for index, chart in enumerate(charts):
        draw_chart(figure.add_subplot(cells[divmod(index, COLUMNS)]), chart, run.events)
    with atomic_write(out) as file:
        file.write(as_png(figure))


def draw_chart(axes: Axes, chart: Chart, events: Sequence[Event] = ()) -> None:
    """Draws a chart as the page has it: the same curves, axes, ticks and marks."""
    plot = lay_out(chart, events)
    for curve in chart.curves:
        _draw_curve(axes, curve)
    for mark in plot.marks:
        axes.axvline(mark.images_seen, color=LIGHT["quiet"], linestyle=(0, (2, 3)), linewidth=0.8)
    axes.set_title(chart.title, loc="left", fontsize=10, color=LIGHT["ink"])
    _draw_axes(axes, plot)
    if len(chart.curves) > 1:
        axes.legend(frameon=False, fontsize=8, labelcolor=LIGHT["ink"])


def _draw_curve(axes: Axes, curve: Curve) -> None:
    xs, ys = zip(*curve.points, strict=True)
    style = curve_style(curve.style)
    (line,) = axes.plot(xs, ys, label=curve.label, color=style.light, linewidth=1.4, clip_on=False)
    if style.dash:
        line.set_linestyle((0, style.dash))
    if len(xs) < 3:
        line.set(marker="o", markersize=3)


def _draw_axes(axes: Axes, plot: Plot) -> None:
    axes.set(xlim=(0, plot.right), ylim=(plot.low, plot.high))
    axes.set_xticks(*zip(*((tick.value, tick.label) for tick in plot.x_ticks), strict=True))
    axes.set_yticks(*zip(*((tick.value, tick.label) for tick in plot.y_ticks), strict=True))
    axes.tick_params(labelsize=8, colors=LIGHT["quiet"], length=0)
    kinds = ", ".join(dict.fromkeys(mark.kind for mark in plot.marks))
    axes.set_xlabel(f"images seen; dotted: {kinds}" if kinds else "images seen", fontsize=8, color=LIGHT["quiet"])
    axes.set_ylabel(plot.chart.unit, fontsize=8, color=LIGHT["quiet"])
    axes.set_axisbelow(True)
    axes.grid(axis="y", color=LIGHT["rule"])
    axes.spines[:].set_visible(False)


def as_png(figure: Figure) -> bytes:
    """The figure as the content of a file."""
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=110)
    return picture.getvalue()
