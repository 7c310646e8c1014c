"""Scores taken during training, and which moment was the best."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor, nn

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import EvaluateConfig, TrainConfig
from dcgan_dist.data.loader import PixelSource
from dcgan_dist.distributed.workforce import Workforce
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.images import to_pixels
from dcgan_dist.metrics.evaluation import WITH_WEIGHTS, Evaluator, assert_installed
from dcgan_dist.metrics.inception import find_weights, missing_weights
from dcgan_dist.metrics.scores import append_scores, best_score, drop_scores_after, read_scores
from dcgan_dist.run.retention import checkpoint_name
from dcgan_dist.training.plan import Plan

log = logging.getLogger(__name__)


@dataclass
class TrainingScores:
    """Scores generators under one protocol, writes scores.jsonl, and knows the best so far. All ranks call it."""

    evaluator: Evaluator
    path: Path
    world: World
    best: tuple[float, int] | None
    """The lowest score so far, and the images seen when it was taken."""
    bests: list[int] = field(default_factory=list)
    """Images seen at each score that was the best so far, for the checkpoints: the newest comes last."""
    pending: dict[str, float] = field(default_factory=dict)
    """Figures of the score just taken, for the row of the same moment."""

    def take(self, generator: nn.Module, images_seen: int, averaged: bool) -> bool:
        """Scores `generator` now. Returns whether it is the best so far."""
        (score,) = self.evaluator.score(_drawing(generator))
        value, metric = float(self.world.broadcast_object(score.value)), score.protocol.metric
        if self.best is None or value < self.best[0]:
            self.best = value, images_seen
            self.bests.append(images_seen)
        lowest, lowest_at = self.best
        is_best = lowest_at == images_seen
        self.pending = {
            f"quality/{metric}": value,
            f"best/{metric}": lowest,
            f"best/{metric}_images_seen": lowest_at,
        }
        if self.world.is_main:
            log.info("%s at %d images: %.4g%s", metric, images_seen, value, " (the best so far)" if is_best else "")
            row = score.row(images_seen, "ema" if averaged else "generator")
            try:
                append_scores(self.path, [row], checkpoint=checkpoint_name(images_seen), during_training=True)
            except OSError as error:
                log.warning("could not write %s (%s); training goes on", self.path, error)
        return is_best

    def take_pending(self) -> dict[str, float]:
        """Returns the score's figures for the next row, once."""
        pending, self.pending = self.pending, {}
        return pending


def open_scores(
    config: TrainConfig, plan: Plan, source: PixelSource, path: Path, images_seen: int, world: World
) -> TrainingScores | None:
    """What `evaluate` asks for, or None; scores of what will be trained anew are forgotten.

    Raises UserError, on every rank, if the Inception weights are not there or are none.
    """
    world.on_main(_forget_scores_after, path, images_seen)
    asked = config.evaluate
    if not asked.every_images:
        return None
    evaluator = Evaluator(
        data=config.data,
        manifest=plan.manifest,
        source=source,
        latent_size=config.model.latent_size,
        metrics=(asked.metric,),
        num_images=min(asked.num_images, plan.manifest.samples),
        seed=config.run.seed,
        weights=_weights(config.evaluate),
        workforce=Workforce(world, workers=1),
        classes=plan.classes,
    )
    world.together(evaluator.load)
    key = evaluator.protocol(asked.metric).key
    row = best_score(read_scores(path), asked.metric, key) if world.is_main else None
    best = world.broadcast_object((row["value"], row["images_seen"]) if row else None)
    return TrainingScores(evaluator, path, world, best, [best[1]] if best else [])


def _forget_scores_after(path: Path, images_seen: int) -> None:
    if path.exists():
        drop_scores_after(path, images_seen)


def check_scores(asked: EvaluateConfig) -> None:
    """Raises UserError if the weights or the library that `evaluate` needs are not there."""
    if asked.every_images:
        assert_installed([asked.metric])
        _weights(asked)


def _weights(asked: EvaluateConfig) -> Path | None:
    if asked.metric not in WITH_WEIGHTS:
        return None
    try:
        weights = find_weights(Path(asked.inception_weights) if asked.inception_weights else None, asked.accept_weights)
        if weights is None:
            raise missing_weights(asked.metric)
    except UserError as error:
        raise UserError(_with_names_of_settings(str(error))) from None
    return weights


def _with_names_of_settings(text: str) -> str:
    """A message of `python -m dcgan_dist.evaluate` in the words of the training command."""
    text = text.replace("--inception-weights", "--evaluate.inception_weights")
    return text.replace("--accept-weights", "--evaluate.accept_weights true")


def _drawing(generator: nn.Module):  # noqa: ANN202
    """Returns a function that draws in evaluation mode and leaves the network unchanged."""
    dtype = next(generator.parameters()).dtype

    @torch.no_grad()
    def draw(latents: Tensor) -> Tensor:
        return to_pixels(generator(latents.to(dtype)))

    return draw
