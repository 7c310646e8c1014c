"""What a study consists of: runs of the training command, and what is still to be done for each."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.recipes.recipe import Recipe, Settings, as_arguments
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import read_rows
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.metrics.scores import ScoreRow, read_scores
from dcgan_dist.reporting.facts import written
from dcgan_dist.reporting.read_run import read_run
from dcgan_dist.run.folder import RunFolder

SIGNALS = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"
CURVE_IMAGES = 2048  # drawn for a score during a run; fewer where the score at the end takes fewer
SCORE_SEED = 0  # one for all runs, so that all are compared with the same real images

GIVEN_BY = {
    "run.dir": "--out",
    "run.name": "the recipe's name",
    "run.seed": "--seeds",
    "data.shards": "--shards",
    "data.image_size": "--size",
    "train.total_images": "--images",
    "train.epochs": "--images",
    "evaluate.every_images": "--points",
    "evaluate.num_images": "--score-images",
    "checkpoint.keep_best": "the study",
}
"""Settings that no recipe may have, and what sets them."""
PART_OF_THE_PROTOCOL = ("data.crop", "data.decoder", "evaluate.metric")
"""Settings on which a score depends: only `--all` may change them."""


@dataclass(frozen=True)
class Study:
    """What all runs have in common."""

    out: Path
    shards: Path
    image_size: int
    images: int
    """Images each run is trained on."""
    points: int
    """Scores during each run."""
    seeds: tuple[int, ...]
    metrics: tuple[str, ...]
    """Of the scores after a run, with their floors."""
    score_images: int
    """Images on either side of those scores."""
    weights: Sequence[str]
    """Options of `evaluate` that name the Inception weights."""
    for_all: Settings
    ranks: int

    def trials(self, recipes: Sequence[Recipe]) -> list[Trial]:
        """Every recipe with every seed: all recipes with the first seed come first.

        Raises UserError if a recipe sets what is the study's.
        """
        for recipe in recipes:
            _assert_own(recipe.settings, f"recipe {recipe.name}", {**GIVEN_BY, **_only_for_all()})
        _assert_own(self.for_all, "--all", GIVEN_BY)
        return [self._trial(recipe, seed) for seed in self.seeds for recipe in recipes]

    def _trial(self, recipe: Recipe, seed: int) -> Trial:
        folder = self.out / recipe.name / f"seed-{seed}"
        every = max(1, self.images // self.points)
        settings = {
            "sample.every_images": str(every),
            "checkpoint.every_images": str(every),
            "checkpoint.keep_last": "1",
            "track.every_images": str(max(1, every // 4)),
            "track.report": "false",
            "track.tensorboard": "false",
            "track.wandb": "off",
            **self.for_all,
            **recipe.settings,
            "run.name": recipe.name,
            "run.dir": str(folder),
            "run.seed": str(seed),
            "data.shards": str(self.shards),
            "data.image_size": str(self.image_size),
            "train.total_images": str(self.images),
            "evaluate.every_images": str(every),
            "evaluate.num_images": str(min(CURVE_IMAGES, self.score_images)),
            "checkpoint.keep_best": "true",
        }
        return Trial(recipe, seed, folder, settings)


def _only_for_all() -> dict[str, str]:
    return dict.fromkeys(PART_OF_THE_PROTOCOL, "--all, as scores depend on it,")


def _assert_own(settings: Settings, where: str, others: dict[str, str]) -> None:
    for key in settings:
        if key in others:
            raise UserError(f"{where}: {key} is set by {others[key]} for all recipes alike; leave it out")


@dataclass(frozen=True)
class Trial:
    """One recipe with one seed: an ordinary run in a folder of its own."""

    recipe: Recipe
    seed: int
    folder: Path
    settings: Settings

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.recipe.name}, seed {self.seed}"

    @property
    def log(self) -> Path:
        """What its commands printed."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def arguments(self) -> list[str]:
        """Its settings for the training command."""
        return as_arguments(self.settings)

    @property
    def status(self) -> dict[str, Any]:
        """status.json of its run; empty before it began."""
        try:
            return json.loads((self.folder / "status.json").read_text())
        except (OSError, ValueError):
            return {}

    @property
    def images_seen(self) -> int:
        """How far its newest row of figures, or its end, is."""
        rows = read_rows(RunFolder(self.folder).metrics)
        return max([int(self.status.get("images_seen", 0)), *(int(row.get("images_seen", 0)) for row in rows[-1:])])

    @property
    def best_at(self) -> int | None:
        """Images seen at the lowest score during its run, if that checkpoint is there."""
        rows = [row for row in read_scores(RunFolder(self.folder).scores) if row.get("during_training")]
        best = min(rows, key=lambda row: row["value"], default=None)
        there = best and RunFolder(self.folder).checkpoint(best["images_seen"]).is_file()
        return int(best["images_seen"]) if best and there else None

    def scores_at(self, images_seen: int, study: Study) -> dict[str, ScoreRow]:
        """The scores after the run, with their floors, of this moment: the newest of each metric."""
        rows = [row for row in read_scores(RunFolder(self.folder).scores) if not row.get("during_training")]
        asked = (images_seen, study.score_images, SCORE_SEED)
        return {
            row["metric"]: row
            for row in rows
            if (row["images_seen"], row["protocol"].get("num_images"), row["protocol"].get("seed")) == asked
        }

    def check(self) -> None:
        """Raises UserError if its folder holds a run with other settings."""
        if not (self.folder / "config.yaml").is_file():
            return
        config = parse_arguments(self.arguments)
        wanted = {f"{part}.{key}": value for part, keys in config.as_dict().items() for key, value in keys.items()}
        for key, was in read_run(self.folder).settings.items():
            if key in wanted and not key.startswith(("run.", "track.")) and written(wanted[key]) != written(was):
                raise UserError(
                    f"{self.folder}: was trained with {key} = {written(was)}, and recipe {self.recipe.name} now has "
                    f"{written(wanted[key])}; choose another --out or another name"
                )


def next_command(study: Study, trial: Trial) -> list[str] | None:
    """The command that a trial needs next: training, then scores of its end and of its best moment; None at its end."""
    status = trial.status
    if status.get("status") != "done" or status.get("images_seen", 0) < study.images:
        ranks = ["--standalone", f"--nproc-per-node={study.ranks}", f"--signals-to-handle={SIGNALS}"]
        launcher = ["launch.torchrun", *ranks, "-m", "launch.rank"] if study.ranks > 1 else ["dcgan_dist.train"]
        return [sys.executable, "-m", *launcher, *trial.arguments]
    for moment in dict.fromkeys((status["images_seen"], trial.best_at)):
        if moment is not None and not set(study.metrics) <= trial.scores_at(moment, study).keys():
            checkpoint = RunFolder(trial.folder).checkpoint(moment)
            return [
                *(sys.executable, "-m", "dcgan_dist.evaluate", "--checkpoint", str(checkpoint)),
                *("--metrics", *study.metrics, "--num-images", str(study.score_images)),
                *("--seed", str(SCORE_SEED), *study.weights),
            ]
    return None
