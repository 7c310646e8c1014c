"""Everything that changes during training, hence everything a checkpoint holds."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dcgan_dist.base.counter_random import stream_seed
from dcgan_dist.config import OptimConfig, TrainConfig
from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.distributed.sync_batch_norm import synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import (
    Discriminator,
    load_singular_vectors,
    singular_vectors,
    use_spectral_norm,
)
from dcgan_dist.gan.fast.convolutions import use_fast_convolutions
from dcgan_dist.gan.generator import Generator
from dcgan_dist.gan.precision import Precision
from dcgan_dist.gan.step import StepMetrics
from dcgan_dist.gan.weights import initialize
from dcgan_dist.run.saved import Saved
from dcgan_dist.tracking.figures import MetricWindow
from dcgan_dist.training.stability import WatchRecord

DISCRIMINATOR_RATE_AFTER_ROLLBACK = 0.5  # of the rate before


@dataclass
class TrainState:
    """The two networks, the generator's average, their optimizers and scalers, and how far the run is."""

    generator: Generator
    discriminator: Discriminator
    average: nn.Module | None
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    generator_scaler: torch.amp.GradScaler
    discriminator_scaler: torch.amp.GradScaler
    window: MetricWindow
    watch: WatchRecord
    images_seen: int = 0

    def parts(self) -> dict[str, Any]:
        """Returns the parts of a checkpoint that it provides, by the fields of `Saved`."""
        return {
            "images_seen": self.images_seen,
            "generator": self.generator.state_dict(),
            "discriminator": self.discriminator.state_dict(),
            "ema": self.average.state_dict() if self.average else None,
            "optimizers": {
                "generator": self.generator_optimizer.state_dict(),
                "discriminator": self.discriminator_optimizer.state_dict(),
            },
            "scalers": {
                "generator": self.generator_scaler.state_dict(),
                "discriminator": self.discriminator_scaler.state_dict(),
            },
            "metric_sums": self.window.sums,
            "watch": self.watch.as_dict(),
            "singular_vectors": singular_vectors(self.discriminator) or None,
        }

    def load(self, saved: Saved, world: World) -> None:
        """Loads a checkpoint. Raises KeyError, RuntimeError or ValueError where the networks are of another shape.

        Also TypeError and AttributeError if it is not a training state.
        """
        self.generator.load_state_dict(saved.generator)
        self.discriminator.load_state_dict(saved.discriminator)
        load_singular_vectors(self.discriminator, saved.singular_vectors)
        if self.average:
            self.average.load_state_dict(saved.ema or saved.generator)
        for optimizer, moments in zip(
            (self.generator_optimizer, self.discriminator_optimizer), saved.adam, strict=True
        ):
            _load_optimizer(optimizer, moments)
        for scaler, scale in zip((self.generator_scaler, self.discriminator_scaler), saved.loss_scales, strict=True):
            if scale and scaler.is_enabled():
                scaler.load_state_dict(scale)
        if world.is_main and saved.metric_sums.shape == self.window.sums.shape:  # an older version may have had fewer
            self.window.sums.copy_(saved.metric_sums)  # of all ranks; the others go on from zero
        self.images_seen = saved.images_seen
        # A checkpoint older than the watch has none.
        self.watch = WatchRecord.from_dict({"last_row": self.images_seen} if saved.watch is None else saved.watch)
        for group in self.discriminator_optimizer.param_groups:
            group["lr"] *= DISCRIMINATOR_RATE_AFTER_ROLLBACK**self.watch.rollbacks


def initial_state(config: TrainConfig, world: World, precision: Precision, num_classes: int = 0) -> TrainState:
    """The state before the first step: a function of the configuration, the same on every rank.

    `num_classes`: those that the networks are told of.
    """
    size, model = config.data.image_size, config.model
    generator = Generator(size, model.latent_size, model.base_channels, num_classes)
    discriminator = Discriminator(size, model.base_channels, model.discriminator_input_norm, num_classes)
    for index, network in enumerate((generator, discriminator)):
        random = torch.Generator().manual_seed(stream_seed(config.run.seed, "initial weights", index))
        initialize(network, random)
        network.to(world.device, precision.weights).to(memory_format=torch.channels_last)
        use_fast_convolutions(network, kernels_run_on(world.device))
        if network is discriminator and config.model.spectral_norm:
            use_spectral_norm(network, random)
        of_batch = world if config.train.batch_norm == "sync" else world.alone()
        synchronise_batch_norm(network, of_batch, config.train.symmetric_memory)
    average = None
    if config.ema.half_life_images:
        average = copy.deepcopy(generator).eval().requires_grad_(False)
    optim = config.optim
    return TrainState(
        generator,
        discriminator,
        average,
        _adam(generator, optim.generator_lr, optim),
        _adam(discriminator, optim.discriminator_lr, optim),
        precision.scaler(),
        precision.scaler(),
        MetricWindow(StepMetrics._fields, world.device),
        WatchRecord(),
    )


def _load_optimizer(optimizer: torch.optim.Optimizer, saved: dict[str, Any]) -> None:
    """Takes over Adam's moments; the settings stay those of the configuration.

    Raises ValueError if a moment is missing or not of its weight's shape: fused Adam would read beyond its end.
    """
    own = [{name: value for name, value in group.items() if name != "params"} for group in optimizer.param_groups]
    optimizer.load_state_dict(saved)
    for group, settings in zip(optimizer.param_groups, own, strict=True):
        group.update(settings)
        for weight in group["params"] if optimizer.state else ():
            moments = optimizer.state.get(weight, {})
            shapes = {name: value.shape for name, value in moments.items()}
            if shapes != {"step": torch.Size(), "exp_avg": weight.shape, "exp_avg_sq": weight.shape}:
                raise ValueError(f"the optimizer's moments of a weight of shape {list(weight.shape)} are {shapes}")


def _adam(network: nn.Module, lr: float, optim: OptimConfig) -> torch.optim.Optimizer:
    weight = next(network.parameters())
    # A rate that changes must lie on the device, where a CUDA graph looks it up at each step.
    rate = torch.tensor(lr, device=weight.device) if optim.decay_last else lr
    betas = (optim.beta1, optim.beta2)
    return torch.optim.Adam(network.parameters(), lr=rate, betas=betas, fused=True, capturable=weight.is_cuda)
