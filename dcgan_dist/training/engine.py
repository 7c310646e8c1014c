"""How a training step is run: operation by operation, or replayed as one CUDA graph."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from functools import partial
from typing import Protocol

import torch
from torch import nn

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.config import TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.gradients import average, replicate
from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.fast import blocks
from dcgan_dist.gan.images import join
from dcgan_dist.gan.learner import Learner, half_copies
from dcgan_dist.gan.losses import LOSSES
from dcgan_dist.gan.precision import Precision
from dcgan_dist.gan.step import GanStep
from dcgan_dist.gan.weights import update_average
from dcgan_dist.training.by_position import StepInputs
from dcgan_dist.training.state import TrainState

log = logging.getLogger(__name__)


class Update(Protocol):
    """Takes training steps."""

    @property
    def most_steps(self) -> int:
        """How many steps it is best given at once."""
        ...

    def __call__(self, steps: int = 1) -> None:
        """Takes so many steps, whose inputs are prepared; on a GPU they may still be going on."""
        ...

    def close(self) -> None:
        """Releases what it holds on the device."""
        ...


STEPS_BEFORE_CAPTURE = 11  # libraries choose kernels and NCCL opens its connections in the first steps
REPLAYS_IN_A_ROW = 16  # so few that a request to stop is heard within a second


def choose_kernels(config: TrainSection) -> None:
    """Lets cuDNN use only kernels that give the same bits every time, or else whichever it finds to be the fastest."""
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = not config.deterministic


def open_update(
    config: TrainConfig, state: TrainState, precision: Precision, inputs: StepInputs, batches: BatchPlan, world: World
) -> EagerUpdate | CapturedUpdate:
    """The update of `state` on this rank's share of a batch, run as `config.train` asks for it and the device can."""
    step = _open_step(config.train, state, precision, batches, world)
    update = EagerUpdate(step, state, inputs, batches.global_batch)
    if config.train.engine == "ddp" or world.device.type != "cuda":
        return update
    if not world.sums_on_device:
        log.info("ranks share a GPU, whose collectives no CUDA graph can hold; steps run operation by operation")
        return update
    return CapturedUpdate(update, world)


def _open_step(
    train: TrainSection, state: TrainState, precision: Precision, batches: BatchPlan, world: World
) -> GanStep:
    plain = train.engine == "ddp"

    def learner(network: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Learner:
        network, copies = (replicate(network, world), {}) if plain else (network, half_copies(network, precision))
        averages = partial(average, world=world) if world.has_peers and not plain else None
        with world.symmetric_memory(train.symmetric_memory and not plain):  # where it keeps its gradients
            return Learner(network, optimizer, scaler, precision, averages, copies)

    return GanStep(
        learner(state.generator, state.generator_optimizer, state.generator_scaler),
        learner(state.discriminator, state.discriminator_optimizer, state.discriminator_scaler),
        precision,
        loss_weight=batches.count * world.size / batches.global_batch,
        loss=LOSSES[train.loss],
        join=blocks.join if kernels_run_on(world.device) else join,
        accumulate=train.accumulate,
        reuse_fakes=train.reuse_fakes,
        r1_gamma=train.r1_gamma,
        num_classes=state.discriminator.num_classes,
    )


@dataclass(frozen=True)
class EagerUpdate:
    """The step and all that changes with it, operation by operation: networks, average, sums of figures."""

    step: GanStep
    state: TrainState
    inputs: StepInputs
    global_batch: int

    @property
    def most_steps(self) -> int:
        """One: the host has as much to do as the device."""
        return 1

    def __call__(self, steps: int = 1) -> None:
        """See `Update`."""
        for _ in range(steps):
            batch, half_life_images = self.inputs.take()
            metrics = self.step(batch)
            if self.state.average is not None:
                update_average(self.state.average, self.state.generator, self.global_batch, half_life_images)
            self.state.window.add(metrics, images=len(batch.pixels))

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


class CapturedUpdate:
    """Replays a step as one CUDA graph: the host starts hundreds of kernels and collectives with a single call.

    The first steps of a process run operation by operation; they are steps of the training like all others. Then every
    rank records one, and if one rank cannot, all go on as they began. A graph holds one step, inputs included, and
    moves on by itself: with several in it, it would need the memory of several steps and save next to nothing.
    """

    def __init__(self, update: EagerUpdate, world: World) -> None:
        self.eager = update
        self._world = world
        self._stream = torch.cuda.Stream(world.device)
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None

    @property
    def most_steps(self) -> int:
        """Several, once they are replayed."""
        return REPLAYS_IN_A_ROW if self._graph else 1

    def __call__(self, steps: int = 1) -> None:
        """See `Update`."""
        for _ in range(steps):
            if self._graph is None:
                self._steps += 1
                if self._steps == STEPS_BEFORE_CAPTURE + 1:
                    self._capture()
            if self._graph is None:
                self._on_side_stream()
            else:
                self._graph.replay()

    @property
    def is_captured(self) -> bool:
        """Whether a graph has been captured, so that steps are replayed."""
        return self._graph is not None

    def _on_side_stream(self) -> None:
        # A graph is recorded on a stream of its own, and everything it meets must have begun its life there.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self.eager()
        torch.cuda.current_stream().wait_stream(self._stream)

    def _capture(self) -> None:
        problem = ""
        torch.cuda.synchronize()
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the threads of DALI, checkpoints and heartbeat may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self.eager()
        except RuntimeError as error:
            problem = in_one_line(error, 200)
        problems = self._world.gather_objects(problem)
        if failed := [rank for rank, text in enumerate(problems) if text]:
            log.warning("rank %d cannot record a CUDA graph (%s); steps run one by one", failed[0], problems[failed[0]])
            graph.reset()
            return
        self._graph = graph

    def close(self) -> None:
        """Frees the graph; to be called while the process group is still there, which it holds on to."""
        if self._graph is not None:
            torch.cuda.synchronize()
            self._graph.reset()
            self._graph = None
