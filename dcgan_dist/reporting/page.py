"""The page: everything a reader wants of one run, or of several side by side, in one file of HTML."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dcgan_dist
from dcgan_dist.reporting.charts import charts_of_run, charts_of_runs
from dcgan_dist.reporting.facts import (
    Fact,
    changed_settings,
    differing_settings,
    facts_of,
    score_table,
    subtitle,
    written,
)
from dcgan_dist.reporting.pictures import embed
from dcgan_dist.reporting.plot import lay_out
from dcgan_dist.reporting.read_run import Grid, RunRecord
from dcgan_dist.reporting.style import CURVE_STYLES, DARK, LIGHT
from dcgan_dist.reporting.svg_chart import SvgChart

BYTES_FOR_PICTURES = 3_600_000
MOST_GRIDS = 40
"""Moments shown on the slider, over all runs; a long run's are chosen evenly."""


def render_page(runs: Sequence[RunRecord]) -> str:
    """The page of one run, or of several compared, as HTML."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    environment = Environment(
        loader=PackageLoader("dcgan_dist.reporting", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"utc": _utc, "written": written, "breakable": _breakable}
    return environment.get_template("page.html.j2").render(**_contents(runs))


def labels_of(runs: Sequence[RunRecord]) -> list[str]:
    """A name for each run; where two folders have the same name, their paths."""
    names = [run.name for run in runs]
    return [name if names.count(name) == 1 else str(run.folder.path) for name, run in zip(names, runs, strict=True)]


def _contents(runs: Sequence[RunRecord]) -> dict[str, Any]:
    labels, alone = labels_of(runs), len(runs) == 1
    grids = [evenly(run.grids, max(2, MOST_GRIDS // len(runs))) for run in runs]
    pictures = embed(_paths(runs, grids), BYTES_FOR_PICTURES)
    charts = charts_of_run(runs[0]) if alone else charts_of_runs(runs, labels)
    return {
        "title": labels[0] if alone else f"{len(runs)} runs compared",
        "runs": [_run(run, label, runs) for run, label in zip(runs, labels, strict=True)],
        "viewers": [
            _viewer(index, label, own, pictures) for index, (label, own) in enumerate(zip(labels, grids, strict=True))
        ],
        "moments": sorted({grid.images_seen for own in grids for grid in own}),
        "reals": _reals(runs, labels, pictures),
        "svg_charts": [SvgChart(lay_out(chart, runs[0].events if alone else ())) for chart in charts],
        "light": LIGHT,
        "dark": DARK,
        "curve_styles": CURVE_STYLES,
        "line_width": SvgChart.line_width,
        "differing": differing_settings(runs),
        "version": dcgan_dist.__version__,
        "now": time.time(),
    }


def _run(run: RunRecord, label: str, runs: Sequence[RunRecord]) -> dict[str, Any]:
    facts: list[Fact] = facts_of(run, runs)
    return {
        "label": label,
        "record": run,
        "subtitle": subtitle(run),
        "facts": facts,
        "scores": score_table(run),
        "changed": changed_settings(run),
    }


def evenly(grids: Sequence[Grid], most: int) -> list[Grid]:
    """At most `most` of them, with the first and the last."""
    if len(grids) <= most:
        return list(grids)
    return [grids[round(index * (len(grids) - 1) / (most - 1))] for index in range(most)]


def _paths(runs: Sequence[RunRecord], grids: Sequence[Sequence[Grid]]) -> list[Path]:
    drawn = [path for own in grids for grid in own for path in (grid.generator, grid.average) if path]
    return drawn + [run.real for run in runs if run.real]


def _viewer(index: int, label: str, grids: Sequence[Grid], pictures: dict[Path, str]) -> dict[str, Any]:
    """The frames of one run: of each network its grids that could be read."""
    frames = [
        {"images_seen": grid.images_seen, "network": network, "source": pictures[path]}
        for grid in grids
        for network, path in (("generator", grid.generator), ("average", grid.average))
        if path in pictures
    ]
    return {"label": label, "style": index, "frames": frames}


def _reals(runs: Sequence[RunRecord], labels: Sequence[str], pictures: dict[Path, str]) -> list[tuple[str, str]]:
    """(whose, picture) of the real images; runs on the same images share one."""
    shared: dict[str, list[str]] = {}
    for run, label in zip(runs, labels, strict=True):
        if run.real in pictures:
            shared.setdefault(pictures[run.real], []).append(label)
    return [(", ".join(owners), source) for source, owners in shared.items()]


def _breakable(name: str) -> Any:
    """A setting's name that a narrow screen may break at its dots and underscores."""
    from markupsafe import Markup, escape

    return Markup(str(escape(name)).replace(".", ".<wbr>").replace("_", "_<wbr>"))


def _utc(seconds: float | None) -> str:
    if seconds is None:
        return ""
    try:
        return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))
    except (OverflowError, OSError, ValueError):
        return ""
