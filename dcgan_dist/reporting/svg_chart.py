"""A chart as the page draws it: where everything lies on a sheet of SVG."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from dcgan_dist.reporting.charts import Curve
from dcgan_dist.reporting.plot import Plot, short


@dataclass(frozen=True)
class SvgChart:
    """A plot on `width` by `height` of SVG's units; the four sides are where the curves' part of it ends."""

    plot: Plot
    width: ClassVar = 480
    height: ClassVar = 236
    left: ClassVar = 46
    right: ClassVar = width - 12
    top: ClassVar = 10
    bottom: ClassVar = height - 40
    line_width: ClassVar = 1.8

    def x(self, images_seen: float) -> float:
        """How far to the right a moment lies."""
        return round(self.left + images_seen / self.plot.right * (self.right - self.left), 1)

    def y(self, value: float) -> float:
        """How far down a value lies."""
        low, high = self.plot.low, self.plot.high
        return round(self.bottom - (value - low) / (high - low) * (self.bottom - self.top), 1)

    def points(self, curve: Curve) -> list[tuple[float, float, str, str]]:
        """x, y, images seen and value as a reader sees them, for each point of a curve."""
        return [(self.x(seen), self.y(value), f"{seen:,.0f}", short(value)) for seen, value in curve.points]

    def path(self, curve: Curve) -> str:
        """The line through a curve's points, as SVG's `d`."""
        return "M" + "L".join(f"{x} {y}" for x, y, *_ in self.points(curve))
