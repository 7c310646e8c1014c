"""What a run leaves behind while it trains: rows of figures, grids, checkpoints."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Any

from dcgan_dist.checkpoint import Checkpointer
from dcgan_dist.distributed.replicate import copy_from_main
from dcgan_dist.distributed.world import World
from dcgan_dist.run_folder import RunFolder
from dcgan_dist.sampling import FixedLatentSampler, save_grid
from dcgan_dist.state import TrainState
from dcgan_dist.tracking.console import ConsoleTracker
from dcgan_dist.tracking.throughput import Throughput
from dcgan_dist.tracking.tracker import Trackers

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
    trackers: Trackers
    console: ConsoleTracker | None
    throughput: Throughput
    identity: dict[str, Any]
    """What a checkpoint holds besides the state: seed, config, fingerprint, global batch, tracker ids."""

    def advance(self, state: TrainState) -> None:
        """Moves the progress bar."""
        if self.console:
            self.console.advance(state.images_seen)

    def row(self, state: TrainState) -> None:
        """Logs the means since the last row; the one place where training waits for its figures."""
        figures = state.window.take_means(self.world)
        row: dict[str, float] = {
            "step": state.images_seen // self.global_batch,
            "images_seen": state.images_seen,
            "epoch": round(state.images_seen / self.num_samples, 4),
            **{FIGURE_NAMES[name]: value for name, value in figures.items()},
            **self.throughput.take_figures(),
        }
        self.trackers.log(row)

    def sample(self, state: TrainState) -> None:
        """Draws the fixed latents and saves the grid."""
        # With local batch norm the ranks' running statistics differ; rank 0's are the network's, here and on disk.
        copy_from_main(state.generator, self.world, "buffers")
        pixels = self.sampler.draw(state.generator)
        if not self.world.is_main:
            return
        path = self.folder.grid(state.images_seen)
        try:
            save_grid(pixels, path)
        except OSError as error:
            log.warning("could not write %s (%s); training goes on", path, error)
            return
        self.trackers.image("samples/fixed_latents", path, state.images_seen)

    def checkpoint(self, state: TrainState) -> bool:
        """Saves the state; False, and a warning, if the disk would not take it."""
        state.window.collect(self.world)
        if not self.world.is_main:
            return True
        try:
            self.checkpointer.save(state.state_dict() | self.identity)
            self.folder.write_status("running", state.images_seen, "")
        except OSError as error:
            log.warning("could not save a checkpoint at %d images (%s); older ones are kept", state.images_seen, error)
            return False
        return True
