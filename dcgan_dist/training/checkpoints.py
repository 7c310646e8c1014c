"""The checkpoints that a training leaves: what they hold besides its state, and who is told of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.retention import Wanted
from dcgan_dist.run.saved import Saved
from dcgan_dist.tracking.journal import Journal
from dcgan_dist.training.plan import Plan, Run
from dcgan_dist.training.state import TrainState


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
