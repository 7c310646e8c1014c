"""Batch norm statistics for the generator's average, which has never run before it is used."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from dcgan_dist.base.counter_random import normal
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d
from dcgan_dist.distributed.world import World
from dcgan_dist.training.state import TrainState

BATCH, BATCHES = 128, 8  # latents over all ranks


def calibrate_batch_norm(generator: nn.Module, seed: int, latent_size: int, world: World) -> None:
    """Measures the statistics of every batch norm layer on the same 1,024 latents, on any number of ranks.

    Each rank draws its share of them, or all of them where batch norm is not synchronised. No step has computed
    activations with averaged weights, so the statistics of the steps are not theirs (Izmailov et al. 2018, section 3).
    Every rank must call it.
    """
    update_bn(_latents(generator, seed, latent_size, world), generator)


def _latents(generator: nn.Module, seed: int, size: int, world: World) -> Iterator[Tensor]:
    """This rank's part of each batch: [n, latent_size]."""
    weight = next(generator.parameters())
    batch = max(BATCH, world.size)
    layers = [layer for layer in generator.modules() if isinstance(layer, SyncBatchNorm2d)]
    synchronised = any(layer.world.has_peers for layer in layers)
    first, count = share(batch, world.rank, world.size) if synchronised else (0, batch)
    everything = normal(seed, "calibration latents", 0, BATCHES * batch, size, weight.device).to(weight.dtype)
    for latents in everything.split(batch):
        yield latents[first : first + count]


class AverageStatistics:
    """Keeps the statistics of the generator's average up to date, measured once at each step that needs them."""

    def __init__(self, seed: int, latent_size: int, world: World) -> None:
        self._arguments = seed, latent_size, world
        self._measured_at: int | None = None

    def ready(self, state: TrainState) -> None:
        """Measures the average's batch norm statistics, unless done at this step already. Every rank must call it."""
        if state.average is not None and self._measured_at != state.images_seen:
            calibrate_batch_norm(state.average, *self._arguments)
            self._measured_at = state.images_seen
