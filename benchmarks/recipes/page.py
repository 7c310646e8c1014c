"""The study on one page of HTML that needs no network and no file beside it."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import dcgan_dist
from benchmarks.recipes.outcome import MOMENTS, Outcome, RecipeOutcome, floors
from benchmarks.recipes.study import Study
from benchmarks.recipes.table import explanation, header, rows, title
from dcgan_dist import reporting
from dcgan_dist.reporting.charts import Chart, Curve, Point
from dcgan_dist.reporting.pictures import embed
from dcgan_dist.reporting.plot import Tick, lay_out, short, ticks
from dcgan_dist.reporting.style import CURVE_STYLES, DARK, LIGHT
from dcgan_dist.reporting.svg_chart import SvgChart
from dcgan_dist.tracking.panels import QUALITY

BYTES_FOR_PICTURES = 6_000_000


@dataclass(frozen=True)
class Strip:
    """One score of all recipes: a line each, a dot for each seed, in units of SVG."""

    title: str
    unit: str
    names: list[str]
    values: list[tuple[float, ...]]
    floor: float | None
    width: ClassVar = 480
    left: ClassVar = 132
    right: ClassVar = width - 14
    line_height: ClassVar = 26
    top: ClassVar = 8

    @property
    def height(self) -> int:
        """Of the whole sheet."""
        return self.bottom + 24

    @property
    def bottom(self) -> int:
        """Where the axis lies."""
        return self.top + self.line_height * len(self.names)

    def y(self, line: int) -> float:
        """The middle of a recipe's line."""
        return self.top + self.line_height * (line + 0.5)

    def x(self, value: float) -> float:
        """How far to the right a value lies."""
        low, high = self._places[0], self._places[-1]
        return round(self.left + (value - low) / (high - low) * (self.right - self.left), 1)

    @property
    def x_ticks(self) -> list[Tick]:
        """Of the axis."""
        return [Tick(place, short(place, self._places[-1])) for place in self._places]

    @property
    def _places(self) -> list[float]:
        known = [value for values in self.values for value in values]
        known += [] if self.floor is None else [self.floor]
        return ticks(min(known), max(known), 5)


@dataclass(frozen=True)
class RecipeCurve:
    """The score of one recipe over images: its mean over the seeds, the space they fill, and the first recipe's."""

    name: str
    svg: SvgChart
    band: list[tuple[float, float, float]]
    """Images seen, lowest and highest."""

    @property
    def outline(self) -> str:
        """The space between the lowest and the highest, as the points of an SVG polygon."""
        there = [f"{self.svg.x(seen)},{self.svg.y(high)}" for seen, _, high in self.band]
        back = [f"{self.svg.x(seen)},{self.svg.y(low)}" for seen, low, _ in reversed(self.band)]
        return " ".join(there + back)


def render(study: Study, found: Sequence[RecipeOutcome]) -> str:
    """The page as HTML."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    folders = [Path(__file__).parent, Path(reporting.__file__).parent]
    environment = Environment(
        loader=FileSystemLoader(folders),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("study.html.j2").render(**_contents(study, found))


def _contents(study: Study, found: Sequence[RecipeOutcome]) -> dict[str, Any]:
    runs = [run for recipe in found for run in recipe.runs]
    environment = next((run.run.environment for run in runs if run.run and run.run.environment), {})
    metric = next((key[0] for run in runs if run.run for key in run.run.training_scores), "")
    return {
        "title": title(study, found),
        "done": sum(recipe.done for recipe in found),
        "runs": len(runs),
        "environment": environment,
        "header": [name.split("\n") for name in header(study, found)],
        "rows": rows(study, found),
        "strips": _strips(study, found),
        "curves": _curves(found),
        "curve_title": QUALITY.get(metric, (metric, "")),
        "grids": _grids(study, found),
        "recipes": [(recipe.recipe.name, _settings(recipe.recipe.settings)) for recipe in found],
        "for_all": _settings(study.for_all),
        "explanation": explanation(study),
        "out": study.out,
        "light": LIGHT,
        "dark": DARK,
        "curve_styles": CURVE_STYLES,
        "line_width": SvgChart.line_width,
        "version": dcgan_dist.__version__,
        "now": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
    }


def _settings(settings: dict[str, str]) -> str:
    return "  ".join(f"{key}={value}" for key, value in settings.items())


def _strips(study: Study, found: Sequence[RecipeOutcome]) -> list[Strip]:
    """One for each metric and moment of which there is a score."""
    known, strips = floors(found), []
    for metric in study.metrics:
        name, unit = QUALITY[metric]
        for moment, words in MOMENTS.items():
            spreads = [recipe.spread(metric, moment) for recipe in found]
            values = [spread.values if spread else () for spread in spreads]
            if any(values):
                names = [recipe.recipe.name for recipe in found]
                strips.append(Strip(f"{name}, {words}", unit, names, values, known.get(metric)))
    return strips


def _curves(found: Sequence[RecipeOutcome]) -> list[RecipeCurve]:
    """One for each recipe, all with the same axes, so that they can be compared."""
    bands = [_band(recipe.runs) for recipe in found]
    lines = [Curve(recipe.recipe.name, 0, _means(recipe.runs)) for recipe in found]
    if not any(bands):
        return []
    axes = lay_out(Chart("", "", lines, _top(bands)))
    first = replace(lines[0], style=5)
    made = []
    for line, band in zip(lines, bands, strict=True):
        if band:
            beside = [first] if line is not lines[0] and first.points else []
            svg = SvgChart(replace(axes, chart=Chart(line.label, "", [line, *beside])))
            made.append(RecipeCurve(line.label, svg, band))
    return made


def _top(bands: Sequence[Sequence[tuple[float, float, float]]]) -> float:
    """Where the curves are cut off: what lies above is the beginning, when nothing has been learned."""
    points = [(seen, high) for band in bands for seen, _, high in band]
    half = max(seen for seen, _ in points) / 2
    return 1.5 * max(high for seen, high in points if seen >= half)


def _by_moment(runs: Sequence[Outcome]) -> dict[float, list[float]]:
    """The scores of all seeds by images seen."""
    found: dict[float, list[float]] = {}
    for run in runs:
        for seen, value in run.curve:
            found.setdefault(seen, []).append(value)
    return dict(sorted(found.items()))


def _means(runs: Sequence[Outcome]) -> list[Point]:
    return [(seen, sum(values) / len(values)) for seen, values in _by_moment(runs).items()]


def _band(runs: Sequence[Outcome]) -> list[tuple[float, float, float]]:
    return [(seen, min(values), max(values)) for seen, values in _by_moment(runs).items()]


def _grids(study: Study, found: Sequence[RecipeOutcome]) -> list[tuple[int, list[tuple[str, str, str]]]]:
    """For each seed, a picture of every recipe: (name, images seen, picture); the first seed's after real images."""
    last = {
        (seed, recipe.recipe.name): run.run.grids[-1]
        for recipe in found
        for seed, run in zip(study.seeds, recipe.runs, strict=True)
        if run.run and run.run.grids
    }
    paths = {key: grid.average or grid.generator for key, grid in last.items()}
    real = next((run.run.real for recipe in found for run in recipe.runs if run.run and run.run.real), None)
    pictures = embed([path for path in (real, *paths.values()) if path], BYTES_FOR_PICTURES)
    sections = []
    for seed in study.seeds:
        shown = [("real images", "", pictures[real])] if real in pictures and seed == study.seeds[0] else []
        shown += [
            (name, short(last[seed, name].images_seen), pictures[path])
            for (of, name), path in paths.items()
            if of == seed and path in pictures
        ]
        if shown:
            sections.append((seed, shown))
    return sections
