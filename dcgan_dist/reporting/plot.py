"""What is to be seen of a chart, whoever draws it: how far its axes go, their ticks, the marks of events."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dcgan_dist.reporting.charts import Chart
from dcgan_dist.reporting.read_run import Event


@dataclass(frozen=True)
class Tick:
    """A place on an axis, and what stands there."""

    value: float
    label: str


@dataclass(frozen=True)
class Mark:
    """Something that happened, as an upright line."""

    images_seen: float
    kind: str
    text: str


@dataclass(frozen=True)
class Plot:
    """A chart that is ready to be drawn, in its own numbers: images seen from 0 to `right`, values by the ticks."""

    chart: Chart
    right: float
    x_ticks: list[Tick]
    y_ticks: list[Tick]
    marks: list[Mark]

    @property
    def low(self) -> float:
        """Where the vertical axis begins."""
        return self.y_ticks[0].value

    @property
    def high(self) -> float:
        """Where the vertical axis ends."""
        return self.y_ticks[-1].value


def lay_out(chart: Chart, events: Sequence[Event] = ()) -> Plot:
    """What to draw of a chart; `events` become marks."""
    points = [point for curve in chart.curves for point in curve.points]
    right = max(x for x, _ in points) or 1
    heights = ticks(min(0.0, *(y for _, y in points)), chart.top or max(y for _, y in points), 5)
    places = [tick for tick in ticks(0, right, 5) if tick <= right]
    marks = [Mark(event.images_seen, event.kind, event.text) for event in events if marked(event, right)]
    return Plot(chart, right, _labelled(places), _labelled(heights), marks)


def _labelled(values: Sequence[float]) -> list[Tick]:
    return [Tick(value, short(value, values[-1])) for value in values]


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
