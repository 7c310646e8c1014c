"""The training loop, top to bottom."""

from __future__ import annotations

import math
from dataclasses import dataclass

from dcgan_dist.base.waiting import Advance
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.supply import Supply
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.tracking.figures import StepProfile, Throughput
from dcgan_dist.training.by_position import StepInputs
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
        """True if the steps from `before` to `after` images crossed a multiple."""
        return self.images > 0 and after // self.images > before // self.images

    def steps_until_due(self, images_seen: int, global_batch: int) -> float:
        """Steps until it is due, the one that makes it due included; infinity if it never is."""
        if not self.images:
            return math.inf
        return -(-((images_seen // self.images + 1) * self.images - images_seen) // global_batch)


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

    def free_steps(self, images_seen: int, global_batch: int) -> float:
        """Steps after the last of which something is due, and after none before it."""
        every = (self.row, self.sample, self.checkpoint, self.score)
        return min(one.steps_until_due(images_seen, global_batch) for one in every)


@dataclass(frozen=True)
class Training:
    """What the loop works with."""

    state: TrainState
    inputs: StepInputs
    update: Update
    supply: Supply
    recorder: Recorder
    cadence: Cadence
    throughput: Throughput
    heartbeat: Heartbeat
    profile: StepProfile
    advance: Advance
    """Told after some steps how many images they have seen."""

    def steps_in_a_row(self, plan: Plan) -> int:
        """How many steps to take now, with nothing to do in between, not even for the host."""
        if self.profile.running:
            return 1
        images_seen, batch = self.state.images_seen, plan.batches.global_batch
        left = -(-(plan.total_images - images_seen) // batch)
        return int(min(self.cadence.free_steps(images_seen, batch), left, self.update.most_steps))

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
        steps = training.steps_in_a_row(plan)
        with throughput.waiting_for_data():
            steps = training.inputs.prepare(state.images_seen, steps)
        training.update(steps)

        images = steps * plan.batches.global_batch
        before, state.images_seen = state.images_seen, state.images_seen + images
        throughput.add(images)
        training.advance(images)
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
