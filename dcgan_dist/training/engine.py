"""How a training step is run: operation by operation, or replayed as one CUDA graph."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.config import TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.gradients import GradientAverage, replicate
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.losses import LOSSES
from dcgan_dist.gan.precision import Precision
from dcgan_dist.gan.step import GanStep
from dcgan_dist.gan.weights import update_average
from dcgan_dist.training.state import TrainState

log = logging.getLogger(__name__)


class Update(Protocol):
    """Takes one training step at each call."""

    def __call__(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> None:
        """Pixels uint8 [n, 3, size, size], and latents [n, latent_size + classes] for each network's update."""
        ...

    def close(self) -> None:
        """Releases what it holds on the device."""
        ...


STEPS_BEFORE_CAPTURE = 11  # libraries choose kernels and NCCL opens its connections in the first steps


def choose_kernels(config: TrainSection) -> None:
    """Lets cuDNN use only kernels that give the same bits every time, or else whichever it finds to be the fastest."""
    torch.backends.cudnn.deterministic = config.deterministic
    torch.backends.cudnn.benchmark = not config.deterministic


def open_update(
    config: TrainConfig, state: TrainState, precision: Precision, batches: BatchPlan, world: World
) -> EagerUpdate | CapturedUpdate:
    """The update of `state` on this rank's share of a batch, run as `config.train` asks for it and the device can."""
    step = _open_step(config.train, state, precision, batches, world)
    update = EagerUpdate(step, state, batches.global_batch, config.ema.half_life_images)
    if config.train.engine == "ddp" or world.device.type != "cuda":
        return update
    if not world.sums_on_device:
        log.info("ranks share a GPU, whose collectives no CUDA graph can hold; steps run operation by operation")
        return update
    return CapturedUpdate(update, world)


def _open_step(
    train: TrainSection, state: TrainState, precision: Precision, batches: BatchPlan, world: World
) -> GanStep:
    networks = (state.generator, state.discriminator)
    average_gradients = None
    if train.engine == "ddp":
        networks = (replicate(state.generator, world), replicate(state.discriminator, world))
    elif world.has_peers:
        average_gradients = GradientAverage(networks, world)
    return GanStep(
        *networks,
        state.generator_optimizer,
        state.discriminator_optimizer,
        state.generator_scaler,
        state.discriminator_scaler,
        precision,
        loss_weight=batches.count * world.size / batches.global_batch,
        average_gradients=average_gradients,
        loss=LOSSES[train.loss],
        reuse_fakes=train.reuse_fakes,
        num_classes=state.discriminator.num_classes,
    )


@dataclass(frozen=True)
class EagerUpdate:
    """The step and all that changes with it, operation by operation: networks, average, sums of figures."""

    step: GanStep
    state: TrainState
    global_batch: int
    ema_half_life_images: int

    def __call__(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> None:
        metrics = self.step(pixels, first_latents, second_latents)
        if self.state.average is not None:
            update_average(self.state.average, self.state.generator, self.global_batch, self.ema_half_life_images)
        self.state.window.add(metrics, images=len(pixels))

    def close(self) -> None:
        """Does nothing: there is nothing to release."""


class CapturedUpdate:
    """Replays a step as one CUDA graph: the host starts hundreds of kernels and collectives with a single call.

    The first steps of a process run operation by operation; they are steps of the training like all others. Then every
    rank records one, and if one rank cannot, all go on as they began.
    """

    def __init__(self, update: EagerUpdate, world: World) -> None:
        self._update = update
        self._world = world
        self._stream = torch.cuda.Stream(world.device)
        self._steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._inputs: tuple[Tensor, ...] = ()

    def __call__(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> None:
        inputs = (pixels, first_latents, second_latents)
        self._steps += 1
        if self._steps == STEPS_BEFORE_CAPTURE + 1:
            self._capture(inputs)
        if self._graph is None:
            self._on_side_stream(inputs)
            return
        for static, value in zip(self._inputs, inputs, strict=True):
            static.copy_(value)
        self._graph.replay()

    @property
    def is_captured(self) -> bool:
        """Whether a graph has been captured, so that steps are replayed."""
        return self._graph is not None

    def _on_side_stream(self, inputs: tuple[Tensor, ...]) -> None:
        # A graph is recorded on a stream of its own, and everything it meets must have begun its life there.
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            self._update(*inputs)
        torch.cuda.current_stream().wait_stream(self._stream)
        for value in inputs:
            value.record_stream(self._stream)

    def _capture(self, inputs: tuple[Tensor, ...]) -> None:
        problem = ""
        torch.cuda.synchronize()
        self._inputs = tuple(value.clone() for value in inputs)
        graph = torch.cuda.CUDAGraph()
        try:
            # thread_local: the threads of DALI, checkpoints and heartbeat may use the GPU meanwhile.
            with torch.cuda.graph(graph, stream=self._stream, capture_error_mode="thread_local"):
                self._update(*self._inputs)
        except RuntimeError as error:
            problem = in_one_line(error, 200)
        problems = self._world.gather_objects(problem)
        if failed := [rank for rank, text in enumerate(problems) if text]:
            log.warning("rank %d cannot record a CUDA graph (%s); steps run one by one", failed[0], problems[failed[0]])
            graph.reset()
            self._forget_gradients()
            return
        self._graph = graph

    def _forget_gradients(self) -> None:
        """Drops gradients left by a failed capture, whose memory is gone; flat gradients were allocated before it."""
        if self._update.step.average_gradients is None:
            for optimizer in (self._update.step.generator_optimizer, self._update.step.discriminator_optimizer):
                optimizer.zero_grad(set_to_none=True)

    def close(self) -> None:
        """Frees the graph; to be called while the process group is still there, which it holds on to."""
        if self._graph is not None:
            torch.cuda.synchronize()
            self._graph.reset()
            self._graph = None
