"""Which figures of a run share a chart, and what a reader calls them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from dcgan_dist.reporting.read_run import RunRecord, is_number, protocol_note
from dcgan_dist.tracking.panels import NO_CURVES, PANELS, QUALITY, Panel

MOST_POINTS = 240
"""More points than that cannot be told apart on a screen: each is then the mean of its neighbours."""

SCORES = ("quality", "best")
"""Figures of the rows that scores.jsonl holds with their protocol."""

Point = tuple[float, float]


@dataclass(frozen=True)
class Curve:
    """One line on a chart, over images seen. `style` numbers its colour and dashes."""

    label: str
    style: int
    points: list[Point]


@dataclass(frozen=True)
class Chart:
    """Curves with one vertical axis."""

    title: str
    unit: str
    curves: list[Curve]
    top: float | None = None


def charts_of_run(run: RunRecord) -> list[Chart]:
    """A chart for each panel that the run has figures for; its figures are the curves."""
    charts = charts_of_scores([run], ["score"])
    for panel in panels_for([run]):
        points = [(label, points_of(run, name, panel.scale)) for name, label in panel.figures.items()]
        curves = [Curve(label, style, line) for style, (label, line) in enumerate(points) if line]
        if curves:
            charts.append(Chart(panel.title, panel.unit, curves, panel.top))
    return charts


def charts_of_runs(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[Chart]:
    """A chart for each figure; the runs are the curves."""
    charts = charts_of_scores(runs, labels)
    for panel in panels_for(runs):
        for name, label in panel.figures.items():
            lines = [points_of(run, name, panel.scale) for run in runs]
            curves = [Curve(labels[index], index, line) for index, line in enumerate(lines) if line]
            title = panel.title if len(panel.figures) == 1 else f"{panel.title}: {label}"
            if curves:
                charts.append(Chart(title, panel.unit, curves, panel.top))
    return charts


def charts_of_scores(runs: Sequence[RunRecord], labels: Sequence[str]) -> list[Chart]:
    """A chart for each metric and protocol: no scores of unlike protocols stand on one."""
    scores = [run.training_scores for run in runs]
    known = dict.fromkeys(key for own in scores for key in own)
    charts = []
    for metric, protocol in known:
        lines = [
            [(float(row["images_seen"]), row["value"]) for row in own.get((metric, protocol), ())] for own in scores
        ]
        curves = [Curve(labels[index], index, _thinned(line)) for index, line in enumerate(lines) if line]
        title, unit = QUALITY.get(metric, (metric.replace("_", " "), ""))
        charts.append(Chart(title, unit + protocol_note(metric, protocol, known), curves))
    return charts


def panels_for(runs: Sequence[RunRecord]) -> list[Panel]:
    """The known panels, then whatever else the rows hold, by the part of the name before `/`."""
    names = {name for run in runs for row in run.rows for name in row if "/" in name}
    known = NO_CURVES | {name for panel in PANELS for name in panel.figures}
    others: dict[str, dict[str, str]] = {}
    for name in sorted(names - known):
        group, _, figure = name.partition("/")
        if group not in SCORES:
            others.setdefault(group, {})[name] = figure.replace("_", " ")
    shown = [_in_logits(panel) if panel.of_logits and _knows_no_probability(runs) else panel for panel in PANELS]
    return [*shown, *(Panel(group.replace("_", " ").capitalize(), "", figures) for group, figures in others.items())]


def _knows_no_probability(runs: Sequence[RunRecord]) -> bool:
    """Whether one of the runs has a loss whose discriminator judges by any number, not by a probability."""
    return any(run.settings.get("train.loss") in ("hinge", "lsgan") for run in runs)


def _in_logits(panel: Panel) -> Panel:
    return replace(panel, unit="mean logit", top=None)


def points_of(run: RunRecord, name: str, scale: float = 1) -> list[Point]:
    """A figure over images seen, at most MOST_POINTS points."""
    return _thinned([(float(row["images_seen"]), row[name] * scale) for row in run.rows if is_number(row.get(name))])


def _thinned(points: list[Point]) -> list[Point]:
    size = math.ceil(len(points) / MOST_POINTS)
    return [_mean(points[start : start + size]) for start in range(0, len(points), size)] if size > 1 else points


def _mean(points: Sequence[Point]) -> Point:
    return tuple(sum(values) / len(points) for values in zip(*points, strict=True))  # type: ignore[return-value]
