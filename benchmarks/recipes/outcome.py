"""What came out of a study: the scores of every run, and their spread over the seeds of each recipe."""

from __future__ import annotations

import platform
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any

from benchmarks.recipes.recipe import Recipe
from benchmarks.recipes.study import Study, Trial
from dcgan_dist.metrics.scores import ScoreRow
from dcgan_dist.reporting.charts import Point
from dcgan_dist.reporting.facts import training_seconds
from dcgan_dist.reporting.read_run import RunRecord, read_run

MOMENTS = {"best": "at its best", "end": "at the end"}
"""When a run is scored: at the lowest score during it, and at its end."""


@dataclass(frozen=True)
class Spread:
    """A figure over the seeds."""

    values: tuple[float, ...]

    @property
    def mean(self) -> float:
        """Of all seeds alike."""
        return sum(self.values) / len(self.values)

    @property
    def text(self) -> str:
        """Mean, and on a second line lowest to highest where there are several."""
        around = f"\n{min(self.values):.3g} to {max(self.values):.3g}" if len(self.values) > 1 else ""
        return f"{self.mean:.3g}{around}"


@dataclass(frozen=True)
class Outcome:
    """One run as far as it came."""

    seed: int
    run: RunRecord | None
    """None before it began."""
    curve: list[Point]
    """Images seen, and the score that is taken during a run."""
    scores: dict[str, dict[str, ScoreRow]]
    """By moment (`best`, `end`) and metric."""

    @property
    def images_per_second(self) -> float | None:
        """Of its steps, without scores and grids."""
        seconds = training_seconds(self.run.rows) if self.run else 0.0
        return self.run.rows[-1]["images_seen"] / seconds if self.run and seconds else None


@dataclass(frozen=True)
class RecipeOutcome:
    """A recipe's runs."""

    recipe: Recipe
    runs: list[Outcome]

    def spread(self, metric: str, moment: str) -> Spread | None:
        """Of a score over the seeds that have it."""
        return _spread(self.runs, lambda run: run.scores[moment].get(metric, {}).get("value"))

    @property
    def speed(self) -> Spread | None:
        """Images per second over the seeds."""
        return _spread(self.runs, lambda run: run.images_per_second)

    @property
    def done(self) -> int:
        """Runs that have all their scores."""
        return sum(bool(run.scores["end"]) for run in self.runs)

    @property
    def warned(self) -> int:
        """Runs with signs of collapse that lasted."""
        return sum(bool(run.run and run.run.warnings) for run in self.runs)


def _spread(runs: Sequence[Outcome], figure: Callable[[Outcome], float | None]) -> Spread | None:
    values = tuple(value for run in runs if (value := figure(run)) is not None)
    return Spread(values) if values else None


def outcomes(study: Study, trials: Sequence[Trial]) -> list[RecipeOutcome]:
    """Reads the folders of all runs; a recipe each, in their order."""
    by_recipe: dict[str, list[Trial]] = {}
    for trial in trials:
        by_recipe.setdefault(trial.recipe.name, []).append(trial)
    return [RecipeOutcome(own[0].recipe, [_outcome(study, trial) for trial in own]) for own in by_recipe.values()]


def _outcome(study: Study, trial: Trial) -> Outcome:
    run = read_run(trial.folder) if (trial.folder / "config.yaml").is_file() else None
    during = next(iter(run.training_scores.values()), []) if run else []
    moments = {"best": trial.best_at, "end": trial.images_seen if run and run.state == "done" else None}
    return Outcome(
        seed=trial.seed,
        run=run,
        curve=[(float(row["images_seen"]), row["value"]) for row in during],
        scores={moment: {} if at is None else trial.scores_at(at, study) for moment, at in moments.items()},
    )


def floors(found: Sequence[RecipeOutcome]) -> dict[str, float]:
    """For each metric, the score of real images against other real ones."""
    rows = [row for recipe in found for run in recipe.runs for scores in run.scores.values() for row in scores.values()]
    return {row["metric"]: row["floor"] for row in rows if row.get("floor") is not None}


def as_json(study: Study, found: Sequence[RecipeOutcome]) -> dict[str, Any]:
    """Everything, in the style of benchmarks/results."""
    runs = [run.run for recipe in found for run in recipe.runs if run.run]
    environment = next((run.environment for run in runs if run.environment), {})
    return {
        "date": str(date.today()),
        "device": environment.get("device_name", platform.machine()),
        "versions": {"torch": environment.get("torch"), "python": environment.get("python")},
        "ranks": study.ranks,
        "data": {name: environment.get(name) for name in ("dataset", "dataset_images", "dataset_fingerprint")},
        "image size": study.image_size,
        "images": study.images,
        "seeds": list(study.seeds),
        "settings of all": study.for_all,
        "score images": study.score_images,
        "floors": floors(found),
        "protocols": {row["metric"]: row["protocol"] for row in _last_rows(found)},
        "recipes": {recipe.recipe.name: _recipe_as_json(study, recipe) for recipe in found},
    }


def _last_rows(found: Sequence[RecipeOutcome]) -> list[ScoreRow]:
    return [row for recipe in found for run in recipe.runs for row in run.scores["end"].values()]


def _recipe_as_json(study: Study, found: RecipeOutcome) -> dict[str, Any]:
    figures = {f"{metric} {moment}": found.spread(metric, moment) for metric in study.metrics for moment in MOMENTS}
    return {
        "settings": found.recipe.settings,
        "over the seeds": {
            name: {"mean": spread.mean, "lowest": min(spread.values), "highest": max(spread.values)}
            for name, spread in (figures | {"images per second": found.speed}).items()
            if spread
        },
        "runs": {str(run.seed): _run_as_json(run) for run in found.runs},
    }


def _run_as_json(run: Outcome) -> dict[str, Any]:
    return {
        "state": run.run.verdict if run.run else "not begun",
        "images seen": run.run.images_seen if run.run else 0,
        "images per second": run.images_per_second,
        "curve": run.curve,
        **{moment: _scores_as_json(scores) for moment, scores in run.scores.items()},
    }


def _scores_as_json(scores: dict[str, ScoreRow]) -> dict[str, float]:
    at = {"images seen": next(iter(scores.values()))["images_seen"]} if scores else {}
    return at | {metric: row["value"] for metric, row in scores.items()}
