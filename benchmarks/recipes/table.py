"""The outcome as a table: for the console with rich, and for the page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from benchmarks.recipes.outcome import MOMENTS, RecipeOutcome, floors
from benchmarks.recipes.study import Study


def header(study: Study, found: Sequence[RecipeOutcome]) -> list[str]:
    """What stands above each column, its second line after a line break."""
    known = floors(found)
    names = [(metric, moment) for metric in study.metrics for moment in MOMENTS]
    above = [
        f"{metric} {moment}\nreal {known[metric]:.3g}" if metric in known else f"{metric} {moment}"
        for metric, moment in names
    ]
    return ["recipe", "runs", *above, "images/s"]


def rows(study: Study, found: Sequence[RecipeOutcome]) -> list[list[str]]:
    """A row for each recipe: means over the seeds, and on a second line lowest to highest."""
    return [
        [
            recipe.recipe.name,
            f"{recipe.done} of {len(recipe.runs)}" + (f"\n{recipe.warned} warned" if recipe.warned else ""),
            *(
                spread.text if (spread := recipe.spread(metric, moment)) else ""
                for metric in study.metrics
                for moment in MOMENTS
            ),
            f"{recipe.speed.mean:,.0f}" if recipe.speed else "",
        ]
        for recipe in found
    ]


def print_table(study: Study, found: Sequence[RecipeOutcome], console: Any) -> None:
    """Shows it on a rich console."""
    from rich.table import Table

    table = Table(title=title(study, found), caption=explanation(study))
    for number, name in enumerate(header(study, found)):
        table.add_column(name, justify="right" if number > 1 else "left", no_wrap=True)
    for row in rows(study, found):
        table.add_row(*row)
    console.print(table)


def title(study: Study, found: Sequence[RecipeOutcome]) -> str:
    """What was compared, in a line."""
    seeds = len(study.seeds)
    of_seeds = f"{seeds} seed{'s' * (seeds > 1)}"
    recipes = f"{len(found)} recipe{'s' * (len(found) > 1)}"
    return f"{recipes}, {of_seeds} each, {study.images:,} images at {study.image_size} pixels"


def explanation(study: Study) -> str:
    """How to read the table."""
    return (
        f"mean over the seeds, and lowest to highest; scores of {study.score_images:,} images; "
        "best: at the lowest score during a run; real: of real images"
    )
