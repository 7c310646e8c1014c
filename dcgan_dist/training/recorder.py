"""What a run leaves behind while it trains: rows of figures, grids, scores, checkpoints."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.distributed.gradients import copy_from_main
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.retention import Wanted
from dcgan_dist.run.saved import Saved
from dcgan_dist.tracking.figures import Throughput
from dcgan_dist.tracking.journal import Journal
from dcgan_dist.tracking.tracker import Row
from dcgan_dist.training.plan import Plan, Run, assert_equal_on_all_ranks, checksum
from dcgan_dist.training.samples import FEWEST_IMAGES, AverageStatistics, Samples, spread
from dcgan_dist.training.scoring import TrainingScores
from dcgan_dist.training.stability import Collapsed, Sign, StabilityWatch
from dcgan_dist.training.state import TrainState

FIGURE_NAMES = {
    "discriminator_loss": "loss/discriminator",
    "generator_loss": "loss/generator",
    "real_probability": "score/real",
    "fake_probability": "score/fake",
}


@dataclass(frozen=True)
class Recorder:
    """All ranks call it at the same steps; rank 0 writes."""

    run: Run
    plan: Plan
    journal: Journal
    samples: Samples
    statistics: AverageStatistics
    scoring: TrainingScores | None
    watch: RunWatch
    checkpoints: Checkpoints

    def row(self, state: TrainState, throughput: Throughput) -> None:
        """Logs the means since the last row; the only place where training waits for its figures.

        Raises RunFailed, on every rank, if they are not finite.
        """
        self.watch.look_at_grid(state)
        figures = state.window.take_means(self.run.world)
        if figures.pop("non_finite") > 0 or not all(map(math.isfinite, figures.values())):
            raise self.watch.diverged(state)
        batches = self.plan.batches
        row: Row = {
            "step": state.images_seen // batches.global_batch,
            "images_seen": state.images_seen,
            "epoch": round(state.images_seen / batches.num_samples, 4),
            **{FIGURE_NAMES[name]: value for name, value in figures.items()},
            **gradient_norm(state.generator),
            **_lowered_rate(state),
            **throughput.take_figures(),
            **(self.scoring.take_pending() if self.scoring else {}),
        }
        self.journal.trackers.log(row)
        self.watch.row(state, row)

    def score(self, state: TrainState) -> bool:
        """Scores the generator's average, or the generator. Returns whether to keep a checkpoint of it as best."""
        assert self.scoring
        self.statistics.ready(state)
        generator = state.generator if state.average is None else state.average
        copy_from_main(generator, self.run.world, "buffers")
        was_training = generator.training
        best = self.scoring.take(generator.eval(), state.images_seen, averaged=state.average is not None)
        generator.train(was_training)
        return best and self.run.config.checkpoint.keep_best

    def sample(self, state: TrainState) -> None:
        """Draws and saves the grids, and lets the watch look at them later."""
        self.watch.look_at_grid(state)
        self.watch.grid(state, self.samples.draw(state))

    def checkpoint(self, state: TrainState, wait: bool = False) -> bool:
        """Saves the state, in the background unless `wait` is true; False if it waited and the disk would not take it.

        Raises RunFailed, on every rank, rather than save a state that is damaged.
        """
        self.watch.look_at_grid(state)
        self._assert_sound(state)
        self.statistics.ready(state)
        state.window.collect(self.run.world)
        if not self.run.world.is_main:
            return True
        grids_are_written = self.samples.wait_for_those_so_far()  # a resumed run will not draw them again
        if wait:
            grids_are_written()
            return self.checkpoints.save(state, self._wanted(state))
        self.checkpoints.save_in_background(state, self._wanted(state), before=grids_are_written)
        return True

    def _wanted(self, state: TrainState) -> Wanted:
        """The checkpoints that the run may need once more."""
        bests = self.scoring.bests if self.scoring and self.run.config.checkpoint.keep_best else ()
        return Wanted(bests, state.watch.trusted_images if self.watch.on_collapse == "rollback" else None)

    def _assert_sound(self, state: TrainState) -> None:
        """Raises RunFailed unless figures are finite and weights are equal on all ranks."""
        # In fp16 a gradient may overflow and says nothing; a loss or probability must not.
        bad = state.window.sum_of("non_finite") > 0 or not state.window.sums.isfinite().all()
        if self.run.world.any(bool(bad)):
            raise self.watch.diverged(state)
        assert_equal_on_all_ranks(
            self.run.world,
            {"generator weights": checksum(state.generator), "discriminator weights": checksum(state.discriminator)},
        )


def _lowered_rate(state: TrainState) -> Row:
    """The discriminator's rate as a figure of a row, once a rollback has changed it."""
    rate = float(state.discriminator_optimizer.param_groups[0]["lr"])
    return {"rate/discriminator": rate} if state.watch.rollbacks else {}


@dataclass
class RunWatch:
    """All ranks call it with the same figures and grids, and so come to the same end together."""

    watch: StabilityWatch
    on_collapse: Literal["warn", "stop", "rollback"]
    journal: Journal
    real_spread: float | None
    """How much real images differ; None if that is not known."""
    _grid: tuple[int, Tensor] | None = None
    """The newest grid, if nobody has looked at it yet: images seen, and its spread, still on the device."""

    def row(self, state: TrainState, row: Row) -> None:
        """Looks at a row of figures. Raises Collapsed or RunFailed if the run is to go back or to end."""
        self._act(self.watch.row(state.watch, state.images_seen, row), state.images_seen, state)

    def grid(self, state: TrainState, pixels: Tensor) -> None:
        """Takes a grid drawn by the generator, uint8 [n, 3, size, size], for `look_at_grid`; waits for no device."""
        if self.real_spread and len(pixels) >= FEWEST_IMAGES:
            self._grid = state.images_seen, spread(pixels)

    def look_at_grid(self, state: TrainState) -> None:
        """Looks at the grid that was taken last, if it has not been looked at. Raises as `row` does.

        To be called before the next row and before a checkpoint, which holds what the watch remembers.
        """
        if self._grid is not None and self.real_spread:
            (at, now), self._grid = self._grid, None
            self._act(self.watch.grid(state.watch, at, float(now) / self.real_spread), at, state)

    def diverged(self, state: TrainState) -> RunFailed:
        """Handles a gradient that is not finite, as `train.on_collapse` asks."""
        text = f"the training diverged before {state.images_seen} images were seen: a gradient is not finite"
        if self.on_collapse == "rollback":
            return Collapsed(text, state.images_seen, state.watch.last_row, state.watch.rollbacks)
        return RunFailed(
            f"{text}. The last checkpoint is sound; go on from it with a lower rate and --run.accept_changes true"
        )

    def _act(self, signs: list[Sign], at: int, state: TrainState) -> None:
        """Tells of signs that were seen `at` so many images, and acts on them as the configuration says."""
        for sign in signs:
            self.journal.warned(at, sign.kind, sign.text)
        if not signs or self.on_collapse == "warn":
            return
        text = f"the training collapses at {at} images: {signs[0].text}"
        if self.on_collapse == "rollback":
            raise Collapsed(text, at, min(sign.since for sign in signs), state.watch.rollbacks)
        raise RunFailed(f"{text} (train.on_collapse = stop)")


def gradient_norm(network: nn.Module) -> dict[str, float]:
    """Returns the norm of the last step's gradient as a figure of a row; empty if unknown or not finite (fp16)."""
    gradients = [weight.grad for weight in network.parameters() if weight.grad is not None]
    norm = float(get_total_norm(gradients)) if gradients else math.nan
    return {"gradient/generator": norm} if math.isfinite(norm) else {}


class Checkpoints:
    """Writes the checkpoints of a run and tells the trackers of each once it is whole. For rank 0."""

    def __init__(self, run: Run, plan: Plan, checkpointer: Checkpointer, journal: Journal, ids: dict[str, str]) -> None:
        """`ids`: under which the trackers know the run."""
        self.checkpointer = checkpointer
        self._journal = journal
        self._passed_on: int | None = None
        self._identity: dict[str, Any] = {
            "seed": run.config.run.seed,
            "config": run.config.as_dict(),
            "dataset_fingerprint": plan.manifest.fingerprint,
            "global_batch": plan.batches.global_batch,
            "precision": plan.precision.name,
            "tracker_ids": ids,
            "torch_version": str(torch.__version__),
            "classes": plan.typical.as_dict() if plan.typical else None,
        }

    def save(self, state: TrainState, wanted: Wanted) -> bool:
        """Writes a checkpoint and waits for it. Returns whether it could be written."""
        self.checkpointer.wait()
        saved = self.checkpointer.save(self._of(state), wanted)
        self._pass_on()
        return saved

    def save_in_background(self, state: TrainState, wanted: Wanted, before: Callable[[], None]) -> None:
        """Writes a checkpoint in the background, after calling `before` in the same thread."""
        self._pass_on()  # the one before: this one is not whole yet
        images_seen, warnings = state.images_seen, state.watch.lasting
        told = lambda: self._journal.running(images_seen, warnings)  # noqa: E731
        self.checkpointer.save_in_background(self._of(state), wanted, when_saved=told, before=before)

    def _of(self, state: TrainState) -> Saved:
        return Saved(**state.parts(), **self._identity)

    def _pass_on(self) -> None:
        newest = self.checkpointer.last_saved
        if newest is not None and newest != self._passed_on:
            self._passed_on = newest
            self._journal.trackers.checkpoint(self.checkpointer.path(newest), newest)
