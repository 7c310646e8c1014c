"""The training loop, top to bottom."""

from __future__ import annotations

from dataclasses import dataclass

from dcgan_dist.base.waiting import Advance
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.supply import Supply
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.tracking.figures import StepProfile, Throughput
from dcgan_dist.training.by_position import Rates, StepLatents
from dcgan_dist.training.engine import Update
from dcgan_dist.training.plan import Plan, Run
from dcgan_dist.training.recorder import Recorder
from dcgan_dist.training.state import TrainState


@dataclass(frozen=True)
class Every:
    """A cadence in images: due whenever the count crosses a multiple, whatever the batch size."""

    images: int
    """0: never."""

    def due(self, before: int, after: int) -> bool:
        """True if the step from `before` to `after` images crossed a multiple."""
        return self.images > 0 and after // self.images > before // self.images


@dataclass(frozen=True)
class Cadence:
    """When the loop does something besides training."""

    row: Every
    sample: Every
    checkpoint: Every
    score: Every

    @classmethod
    def of(cls, config: TrainConfig) -> Cadence:
        """Builds the cadences from the settings."""
        track, sample, checkpoint, evaluate = config.track, config.sample, config.checkpoint, config.evaluate
        return cls(*(Every(section.every_images) for section in (track, sample, checkpoint, evaluate)))


@dataclass(frozen=True)
class Training:
    """What the loop works with."""

    state: TrainState
    update: Update
    supply: Supply
    latents: StepLatents
    recorder: Recorder
    cadence: Cadence
    throughput: Throughput
    heartbeat: Heartbeat
    profile: StepProfile
    rates: Rates
    advance: Advance
    """Told after each step how many images it has seen."""

    def close(self) -> None:
        """Ends the watch for hangs and the profile, and frees the graph."""
        self.heartbeat.stop()
        self.profile.close()
        self.update.close()


def train(run: Run, plan: Plan, training: Training) -> str | None:
    """Trains until all images of the plan have been seen. Returns why it stopped early, or None."""
    state, recorder, cadence, throughput = training.state, training.recorder, training.cadence, training.throughput
    throughput.take_figures()  # the clock starts here
    while state.images_seen < plan.total_images:
        if run.stop.agreed(run.world):
            return run.stop.reason
        if not training.supply.ready():
            with throughput.waiting_for_data(), training.heartbeat.paused():
                training.supply.wait()
            continue
        with throughput.waiting_for_data():
            pixels = next(training.supply)  # uint8 [n, 3, size, size]
        training.rates.set(state.images_seen)
        training.update(pixels, *training.latents.at(state.images_seen))

        before, state.images_seen = state.images_seen, state.images_seen + plan.batches.global_batch
        throughput.add(plan.batches.global_batch)
        training.advance(plan.batches.global_batch)
        training.profile.step()
        training.heartbeat.beat()

        best, last = False, state.images_seen >= plan.total_images
        scored = recorder.scoring and (last or cadence.score.due(before, state.images_seen))
        if scored:
            with throughput.paused("scores"), training.heartbeat.paused():
                best = recorder.score(state)
        if scored or cadence.row.due(before, state.images_seen):  # a score has a row of its own, at its moment
            recorder.row(state, throughput)
        if last:
            break  # the last grid and checkpoint are the caller's
        if cadence.sample.due(before, state.images_seen):
            with throughput.paused("samples"):
                recorder.sample(state)
        if best or cadence.checkpoint.due(before, state.images_seen):
            with throughput.paused("checkpoints"):
                recorder.checkpoint(state)
    return None
