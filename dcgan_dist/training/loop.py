"""The training loop, top to bottom."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import normal, stream_seed
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.distributed.world import World
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.profile import StepProfile
from dcgan_dist.training.engine import Update
from dcgan_dist.training.recorder import RunRecorder
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


@dataclass(frozen=True)
class Latents:
    """This rank's latents at each step: functions of the seed and the position, so never another rank's."""

    plan: BatchPlan
    size: int
    world: World
    dtype: torch.dtype
    rollbacks: int = 0
    """After each the run goes on with others, or it would come to the same end."""

    def at(self, images_seen: int) -> tuple[Tensor, Tensor]:
        """One set for the discriminator's update and one for the generator's: [count, size] each."""
        seed = stream_seed(self.plan.seed, "rollback", self.rollbacks) if self.rollbacks else self.plan.seed
        first, second = (
            normal(seed, stream, images_seen + self.plan.first, self.plan.count, self.size, self.world.device)
            for stream in ("discriminator latents", "generator latents")
        )
        return first.to(self.dtype), second.to(self.dtype)


def train(
    state: TrainState,
    update: Update,
    batches: Iterator[Tensor],
    latents: Latents,
    recorder: RunRecorder,
    cadence: Cadence,
    total_images: int,
    stop: StopRequest,
    heartbeat: Heartbeat,
    profile: StepProfile,
    world: World,
) -> str | None:
    """Trains until `total_images` were seen. Returns why it stopped before, or None if it did not."""
    global_batch = latents.plan.global_batch
    throughput = recorder.throughput
    throughput.take_figures()  # the clock starts here
    while state.images_seen < total_images:
        if stop.agreed(world):
            return stop.reason
        with throughput.waiting_for_data():
            pixels = next(batches)  # uint8 [n, 3, size, size]
        update(pixels, *latents.at(state.images_seen))

        before, state.images_seen = state.images_seen, state.images_seen + global_batch
        throughput.add(global_batch)
        recorder.advance(state)
        profile.step()
        heartbeat.beat()

        best, last = False, state.images_seen >= total_images
        scored = recorder.scores and (last or cadence.score.due(before, state.images_seen))
        if scored:
            with throughput.paused("scores"), heartbeat.paused():
                best = recorder.score(state)
        if scored or cadence.row.due(before, state.images_seen):  # a score has a row of its own, at its moment
            recorder.row(state)
        if last:
            break  # the last grid and checkpoint are the caller's
        if cadence.sample.due(before, state.images_seen):
            with throughput.paused("samples"):
                recorder.sample(state)
        if best or cadence.checkpoint.due(before, state.images_seen):
            with throughput.paused("checkpoints"):
                recorder.checkpoint(state)
    return None
