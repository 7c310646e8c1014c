"""Where the curves, ticks and marks of a chart lie on its sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dcgan_dist.reporting.charts import Chart
from dcgan_dist.reporting.read_run import Event

WIDTH, HEIGHT = 480, 236
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 40  # margins around the curves


@dataclass(frozen=True)
class Tick:
    """A line of the grid behind the curves."""

    place: float
    label: str


@dataclass(frozen=True)
class Line:
    """A curve in the drawing's own coordinates. `points`: x, y, images seen, value as a reader sees it."""

    label: str
    style: int
    path: str
    points: list[tuple[float, float, str, str]]


@dataclass(frozen=True)
class Mark:
    """Something that happened, as an upright line."""

    place: float
    text: str


@dataclass(frozen=True)
class Plot:
    """A chart laid out on a sheet of WIDTH by HEIGHT."""

    chart: Chart
    lines: list[Line]
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]


def lay_out(chart: Chart, events: Sequence[Event] = ()) -> Plot:
    """Where everything on a chart goes; `events` become marks."""
    points = [point for curve in chart.curves for point in curve.points]
    right = max(x for x, _ in points) or 1
    y_ticks = ticks(min(0.0, *(y for _, y in points)), chart.top or max(y for _, y in points), 5)
    x_ticks = [tick for tick in ticks(0, right, 5) if tick <= right]
    low, high = y_ticks[0], y_ticks[-1]

    def place_x(x: float) -> float:
        return round(LEFT + x / right * (WIDTH - LEFT - RIGHT), 1)

    def place_y(y: float) -> float:
        return round(HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM), 1)

    lines = []
    for curve in chart.curves:
        placed = [(place_x(x), place_y(y), f"{x:,.0f}", short(y)) for x, y in curve.points]
        path = "M" + "L".join(f"{x} {y}" for x, y, *_ in placed)
        lines.append(Line(curve.label, curve.style, path, placed))
    return Plot(
        chart,
        lines,
        [Tick(place_x(x), short(x, x_ticks[-1])) for x in x_ticks],
        [Tick(place_y(y), short(y, y_ticks[-1])) for y in y_ticks],
        [Mark(place_x(event.images_seen), f"{event.kind}: {event.text}") for event in events if marked(event, right)],
    )


def marked(event: Event, right: float) -> bool:
    """Whether an event is worth a mark on the curves: something in the midst of the run."""
    return 0 < event.images_seen < right and event.kind not in ("start", "done")


def ticks(low: float, high: float, count: int) -> list[float]:
    """Round numbers from `low` or below to `high` or above."""
    from matplotlib.ticker import MaxNLocator

    places: Iterable[float] = MaxNLocator(count, steps=[1, 2, 2.5, 5, 10]).tick_values(
        low, high if high > low else low + 1
    )
    return [float(place) for place in places]


def short(value: float, largest: float | None = None) -> str:
    """A number in few characters: 0.43, 250, 12.8k, 1.5M. Numbers of one axis share the unit of its `largest`."""
    size = abs(value if largest is None else largest)
    for unit, letter, from_size in ((1e6, "M", 1e6), (1e3, "k", 1e4)):
        if size >= from_size:
            return f"{value / unit:.4g}{letter}" if value else "0"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"
