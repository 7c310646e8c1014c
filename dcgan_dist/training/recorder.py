"""What a run leaves behind while it trains: rows of figures, grids, checkpoints."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dcgan_dist.base.stage_clock import StageClock
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan, PixelSource
from dcgan_dist.data.sample_order import sample_ids
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.replicate import copy_from_main
from dcgan_dist.distributed.self_check import assert_equal_on_all_ranks, checksum
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.reporting.curves import draw_curves
from dcgan_dist.reporting.write import try_to_report
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.environment import describe_environment
from dcgan_dist.run.events import forget_warnings_after
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.console import ConsoleTracker
from dcgan_dist.tracking.open_trackers import open_trackers
from dcgan_dist.tracking.throughput import Throughput
from dcgan_dist.tracking.tracker import JsonlTracker, Row, Trackers
from dcgan_dist.training.calibration import calibrate_batch_norm
from dcgan_dist.training.samples import FixedLatentSampler, GridWriter, copy_to_host
from dcgan_dist.training.scoring import TrainingScores
from dcgan_dist.training.stability import StabilityWatch
from dcgan_dist.training.state import TrainState
from dcgan_dist.training.watch import FEWEST_IMAGES, RunWatch, gradient_norm, spread

log = logging.getLogger(__name__)

FIGURE_NAMES = {
    "discriminator_loss": "loss/discriminator",
    "generator_loss": "loss/generator",
    "real_score": "score/real",
    "fake_score": "score/fake",
}


@dataclass
class RunRecorder:
    """Writes into the run folder and tells the trackers; all ranks call it, rank 0 writes."""

    folder: RunFolder
    world: World
    num_samples: int
    global_batch: int
    checkpointer: Checkpointer
    sampler: FixedLatentSampler
    grids: GridWriter
    trackers: Trackers
    console: ConsoleTracker | None
    throughput: Throughput
    identity: dict[str, Any]
    """What a checkpoint holds besides the state: seed, config, fingerprint, global batch, tracker ids."""
    watch: RunWatch
    keep_best: bool
    scores: TrainingScores | None = None
    _calibrated_at: int | None = None
    _passed_on: int | None = None
    with_report: bool = True

    def advance(self, state: TrainState) -> None:
        """Moves the progress bar."""
        if self.console:
            self.console.advance(state.images_seen)

    def row(self, state: TrainState) -> None:
        """Logs the means since the last row; the one place where training waits for its figures.

        Raises RunFailed, on every rank, if they are not finite.
        """
        self.watch.look_at_grid(state)
        figures = state.window.take_means(self.world)
        if figures.pop("non_finite") > 0 or not all(map(math.isfinite, figures.values())):
            raise self.watch.diverged(state)
        row: Row = {
            "step": state.images_seen // self.global_batch,
            "images_seen": state.images_seen,
            "epoch": round(state.images_seen / self.num_samples, 4),
            **{FIGURE_NAMES[name]: value for name, value in figures.items()},
            **gradient_norm(state.generator),
            **_lowered_rate(state),
            **self.throughput.take_figures(),
            **(self.scores.take_pending() if self.scores else {}),
        }
        self.trackers.log(row)
        self.watch.row(state, row)

    def score(self, state: TrainState) -> bool:
        """Scores the generator's average, or the generator; whether a checkpoint is wanted because it is the best."""
        assert self.scores
        self.calibrate(state)
        generator = state.generator if state.average is None else state.average
        copy_from_main(generator, self.world, "buffers")
        was_training = generator.training
        best = self.scores.take(generator.eval(), state.images_seen, averaged=state.average is not None)
        generator.train(was_training)
        if best and self.keep_best:
            self.checkpointer.best = state.images_seen
        return best and self.keep_best

    def real_images(self, source: PixelSource, batches: BatchPlan, num_images: int, save: bool = True) -> None:
        """Measures how the first images of the run differ and, if asked, saves them as a grid beside the samples."""
        self.watch.real_spread = self.world.broadcast_object(
            self._real_images(source, batches, num_images, save) if self.world.is_main else None
        )

    def _real_images(self, source: PixelSource, batches: BatchPlan, num_images: int, save: bool) -> float | None:
        count = min(num_images, batches.num_samples)
        ids = sample_ids(batches.seed, batches.num_samples, 0, count).tolist()
        pixels = torch.cat(list(source([ids[start : start + 64] for start in range(0, count, 64)])))
        if save:
            self._save_grid("samples/real", pixels.permute(0, 3, 1, 2), self.folder.real_grid, 0)
        return float(spread(pixels)) if count >= FEWEST_IMAGES else None

    def calibrate(self, state: TrainState) -> None:
        """Readies the generator's average to be used, unless that was done at this very step."""
        if state.average is not None and self._calibrated_at != state.images_seen:
            latent_size = self.identity["config"]["model"]["latent_size"]
            calibrate_batch_norm(state.average, self.identity["seed"], latent_size, self.world)
            self._calibrated_at = state.images_seen

    def sample(self, state: TrainState) -> None:
        """Draws the fixed latents with the generator and with its average, and saves the two grids."""
        self.watch.look_at_grid(state)
        self.calibrate(state)
        pixels = self._grid(state.generator, "samples/fixed_latents", self.folder.grid(state.images_seen), state)
        if state.average is not None:
            self._grid(state.average, "samples/fixed_latents_ema", self.folder.ema_grid(state.images_seen), state)
        self.watch.grid(state, pixels)

    def _grid(self, generator: nn.Module, name: str, path: Path, state: TrainState) -> Tensor:
        # With local batch norm the ranks' running statistics differ; rank 0's are the network's, here and on disk.
        copy_from_main(generator, self.world, "buffers")
        pixels = self.sampler.draw(generator)
        if self.world.is_main:
            self._save_grid(name, pixels, path, state.images_seen)
        return pixels

    def _save_grid(self, name: str, pixels: Tensor, path: Path, images_seen: int) -> None:
        written = self.grids.save(copy_to_host(pixels), path)
        self.trackers.image(name, path, images_seen, written)

    def show_results(self, state: TrainState) -> None:
        """Says where everything is, after the curves and the report were made. For rank 0."""
        self.report()
        for what, path in (
            ("samples", self.folder.grid(state.images_seen)),
            ("samples of the average", self.folder.ema_grid(state.images_seen)),
            ("real images", self.folder.real_grid),
            ("curves", self.folder.curves),
            ("report", self.folder.report),
            ("checkpoint", self.checkpointer.path(state.images_seen)),
        ):
            if path.exists():
                log.info("  %-24s%s", what, path)

    def report(self) -> None:
        """Draws the curves and writes the report of a run that has ended, if they are wanted. For rank 0."""
        if not self.with_report:
            return
        self.grids.wait()
        try:
            draw_curves(self.folder.metrics, self.folder.curves)
        except Exception as error:  # a picture is no reason to call a finished run failed
            log.warning("could not draw %s (%s)", self.folder.curves, error)
        try_to_report(self.folder)

    def checkpoint(self, state: TrainState, wait: bool = False) -> bool:
        """Saves the state, in the background unless `wait` is true; False if it waited and the disk would not take it.

        Raises RunFailed, on every rank, rather than save a state that is damaged.
        """
        self.watch.look_at_grid(state)
        self._assert_sound(state)
        self.calibrate(state)
        state.window.collect(self.world)
        if not self.world.is_main:
            return True
        if self.watch.on_collapse == "rollback":
            self.checkpointer.way_back = state.watch.trusted_images
        contents = state.state_dict() | self.identity
        if wait:
            self.checkpointer.wait()
            self.grids.wait()
            saved = self.checkpointer.save(contents)
            self._pass_on_checkpoint()
            return saved
        self._pass_on_checkpoint()  # the one before: this one is not whole yet
        images_seen, warnings = state.images_seen, state.watch.lasting
        self.checkpointer.save_in_background(
            contents,
            when_saved=lambda: self.folder.try_write_status("running", images_seen, "", warnings),
            before=self.grids.wait_for_those_so_far(),  # a resumed run will not draw them again
        )
        return True

    def _pass_on_checkpoint(self) -> None:
        """Tells the trackers of the newest checkpoint that is whole, once."""
        newest = self.checkpointer.last_saved
        if newest is not None and newest != self._passed_on:
            self._passed_on = newest
            self.trackers.checkpoint(self.checkpointer.path(newest), newest)

    def _assert_sound(self, state: TrainState) -> None:
        """Finite figures, and the same weights on every rank."""
        # In fp16 a gradient may overflow and says nothing; a loss or score must not.
        bad = state.window.sum_of("non_finite") > 0 or not state.window.sums.isfinite().all()
        if self.world.any(bool(bad)):
            raise self.watch.diverged(state)
        assert_equal_on_all_ranks(
            self.world,
            {"generator weights": checksum(state.generator), "discriminator weights": checksum(state.discriminator)},
        )


def _lowered_rate(state: TrainState) -> Row:
    """The discriminator's rate as a figure of a row, once a rollback has changed it."""
    rate = float(state.discriminator_optimizer.param_groups[0]["lr"])
    return {"rate/discriminator": rate} if state.watch.rollbacks else {}


def open_recorder(
    config: TrainConfig,
    folder: RunFolder,
    checkpointer: Checkpointer,
    batches: BatchPlan,
    total_images: int,
    precision: Precision,
    manifest: Manifest,
    saved: dict[str, Any] | None,
    world: World,
    stages: StageClock,
) -> RunRecorder:
    """The recorder of a run, going on at the checkpoint `saved` if there is one. UserError on every rank or on none."""
    images_seen = saved["images_seen"] if saved else 0
    environment = describe_environment(world, manifest, precision.name, batches.global_batch, total_images)
    with world.together():
        if world.is_main:
            folder.write_environment(environment)
            forget_warnings_after(folder.events, images_seen)
    console = ConsoleTracker(total_images, images_seen) if world.is_main else None
    trackers, tracker_ids = open_trackers(config, folder, environment, saved, world)
    at_once = [tracker for tracker in trackers if isinstance(tracker, JsonlTracker)]  # a checkpoint relies on its rows
    told = Trackers([*at_once, *([console] if console else [])], [one for one in trackers if one not in at_once])
    return RunRecorder(
        folder=folder,
        world=world,
        num_samples=manifest.samples,
        global_batch=batches.global_batch,
        checkpointer=checkpointer,
        sampler=FixedLatentSampler(
            config.run.seed, config.sample.num_images, config.model.latent_size, config.data.image_size, world
        ),
        grids=GridWriter(),
        trackers=told,
        console=console,
        with_report=config.track.report,
        throughput=Throughput(world.device, world.size, stages),
        watch=RunWatch(
            StabilityWatch(total_images, batches.global_batch, config.data.image_size),
            config.train.on_collapse,
            folder.events,
            told,
            world.is_main,
        ),
        keep_best=config.checkpoint.keep_best,
        identity={
            "seed": config.run.seed,
            "config": config.as_dict(),
            "dataset_fingerprint": manifest.fingerprint,
            "global_batch": batches.global_batch,
            "precision": precision.name,
            "tracker_ids": tracker_ids,
            "torch_version": str(torch.__version__),
        },
    )
