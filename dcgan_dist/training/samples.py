"""One latent's way to a picture: drawn from the seed, through the generator, onto a grid, into a PNG."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import update_bn

from dcgan_dist.base.counter_random import normal
from dcgan_dist.base.grid import columns_of, save_grid
from dcgan_dist.data.classes import Classes
from dcgan_dist.data.loader import BatchPlan, PixelSource
from dcgan_dist.data.sample_order import sample_ids, share
from dcgan_dist.distributed.gradients import copy_from_main
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.images import to_pixels
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.tracker import Trackers
from dcgan_dist.training.state import TrainState

log = logging.getLogger(__name__)

FEWEST_IMAGES = 8  # of a grid whose diversity says anything
MOST_PENDING_GRIDS = 8  # more of them, and the disk is stuck: then training waits for it


class FixedLatentSampler:
    """Draws the same latents again and again, so that one sees the generator learn. Each rank draws its share.

    With classes, each row of the grid shows what one of `Classes.on_a_grid` does, and the next row the same latents.
    """

    def __init__(
        self,
        seed: int,
        num_images: int,
        latent_size: int,
        image_size: int,
        world: World,
        classes: Classes | None = None,
    ) -> None:
        self.world = world
        self.image_size = image_size
        self.counts = [share(num_images, rank, world.size)[1] for rank in range(world.size)]
        first, count = share(num_images, world.rank, world.size)
        latents = normal(seed, "fixed latents", 0, num_images, latent_size, world.device)
        if classes:
            latents = _by_row(latents, classes.on_a_grid()[1].to(latents))
        self.latents = latents[first : first + count]

    @torch.no_grad()
    def draw(self, generator: nn.Module) -> Tensor:
        """The images of all ranks, on every rank: uint8 [num_images, 3, size, size]. Changes nothing in `generator`."""
        was_training = generator.training
        generator.eval()  # batch norm by its running statistics: an image does not depend on its neighbours
        size, here = self.image_size, len(self.latents)
        pixels = torch.zeros(max(self.counts), 3, size, size, dtype=torch.uint8, device=self.world.device)
        if here:
            pixels[:here] = to_pixels(generator(self.latents.to(next(generator.parameters()).dtype)))
        generator.train(was_training)
        return torch.cat([part[:count] for part, count in zip(self.world.gather(pixels), self.counts, strict=True)])


def _by_row(latents: Tensor, shown: Tensor) -> Tensor:
    """The latents of a grid, [n, size + classes]: what rows show, `shown` [rows, classes], repeats from top to bottom.

    Latents change only when all of it has been shown.
    """
    places, columns = torch.arange(len(latents), device=latents.device), columns_of(len(latents))
    row, column = places // columns, places % columns
    return torch.cat([latents[row // len(shown) * columns + column], shown[row % len(shown)]], dim=1)


def copy_to_host(pixels: Tensor) -> Callable[[], Tensor]:
    """Begins to copy `pixels` off the device without waiting for it; call what is returned to have the copy."""
    if not pixels.is_cuda:
        return lambda: pixels
    host = torch.empty(pixels.shape, dtype=pixels.dtype, pin_memory=True).copy_(pixels, non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()

    def wait() -> Tensor:
        copied.synchronize()
        return host

    return wait


class GridWriter:
    """Writes grids in a thread of its own, one after the other: training waits for neither PNG nor disk."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="grids")
        self._pending: deque[Future[bool]] = deque()

    def save(self, pixels: Callable[[], Tensor], path: Path) -> Future[bool]:
        """Writes what `pixels` gives, uint8 [n, 3, size, size]; the result is false if the disk would not take it."""
        while self._pending and (self._pending[0].done() or len(self._pending) >= MOST_PENDING_GRIDS):
            self._pending.popleft().result()
        self._pending.append(self._thread.submit(_try_to_save, pixels, path))
        return self._pending[-1]

    def wait_for_those_so_far(self) -> Callable[[], None]:
        """Returns a function that waits for the grids queued so far, and for no later one."""
        so_far = tuple(self._pending)

        def wait() -> None:
            for written in so_far:
                written.result()

        return wait


def _try_to_save(pixels: Callable[[], Tensor], path: Path) -> bool:
    try:
        save_grid(pixels(), path)
    except Exception as error:  # a picture is no reason to end a run
        log.warning("could not write %s (%s); training goes on", path, error)
        return False
    return True


class Samples:
    """The grids of a run: drawn by all ranks, written and told by rank 0 while training goes on."""

    def __init__(
        self, sampler: FixedLatentSampler, statistics: AverageStatistics, folder: RunFolder, trackers: Trackers
    ) -> None:
        self._sampler = sampler
        self._statistics = statistics
        self._folder = folder
        self._trackers = trackers
        self._writer = GridWriter()

    def draw(self, state: TrainState) -> Tensor:
        """Draws the fixed latents with the generator and its average, and saves both; returns the generator's images.

        They are uint8 [n, 3, size, size], on every rank.
        """
        self._statistics.ready(state)
        at = state.images_seen
        pixels = self._grid(state.generator, "samples/fixed_latents", self._folder.grid(at), at)
        if state.average is not None:
            self._grid(state.average, "samples/fixed_latents_ema", self._folder.ema_grid(at), at)
        return pixels

    def real(self, source: PixelSource, batches: BatchPlan, save: bool) -> float | None:
        """How much as many real images differ as a grid has, on every rank; saves them too if asked.

        None if there are too few of them to say. Raises UserError, on every rank, as `source` does.
        """
        world = self._sampler.world
        return world.broadcast_object(world.on_main(self._real, source, batches, save))

    def _real(self, source: PixelSource, batches: BatchPlan, save: bool) -> float | None:
        count = min(sum(self._sampler.counts), batches.num_samples)
        ids = sample_ids(batches.seed, batches.num_samples, 0, count).tolist()
        pixels = torch.cat(list(source([ids[start : start + 64] for start in range(0, count, 64)])))
        if save:
            self._save("samples/real", pixels.permute(0, 3, 1, 2), self._folder.real_grid, 0)
        return float(spread(pixels)) if count >= FEWEST_IMAGES else None

    def _grid(self, generator: nn.Module, name: str, path: Path, images_seen: int) -> Tensor:
        world = self._sampler.world
        # With local batch norm the ranks' running statistics differ; rank 0's are the network's, here and on disk.
        copy_from_main(generator, world, "buffers")
        pixels = self._sampler.draw(generator)
        if world.is_main:
            self._save(name, pixels, path, images_seen)
        return pixels

    def _save(self, name: str, pixels: Tensor, path: Path, images_seen: int) -> None:
        self._trackers.image(name, path, images_seen, self._writer.save(copy_to_host(pixels), path))

    def wait_for_those_so_far(self) -> Callable[[], None]:
        """Returns a function that waits until the grids drawn so far have been written."""
        return self._writer.wait_for_those_so_far()


def spread(pixels: Tensor) -> Tensor:
    """How much images, uint8 [n, 3, size, size], differ: their deviation at a pixel, a scalar on the device.

    By its square, the mean squared distance between two of them is twice the mean variance of a pixel. Says nothing
    about fewer than FEWEST_IMAGES.
    """
    return pixels.double().var(dim=0).mean().sqrt()


BATCH, BATCHES = 128, 8  # latents over all ranks


def calibrate_batch_norm(
    generator: nn.Module, seed: int, latent_size: int, world: World, typical: Classes | None = None
) -> None:
    """Measures the statistics of every batch norm layer on the same 1,024 latents, on any number of ranks.

    Each rank draws its share of them, or all of them where batch norm is not synchronised. No step has computed
    activations with averaged weights, so the statistics of the steps are not theirs (Izmailov et al. 2018, section 3).
    With classes, the conditions are those of `typical` images. Every rank must call it.
    """
    update_bn(_latents(generator, seed, latent_size, world, typical), generator)


def _latents(generator: nn.Module, seed: int, size: int, world: World, typical: Classes | None) -> Iterator[Tensor]:
    """This rank's part of each batch: [n, latent_size + classes]."""
    weight = next(generator.parameters())
    batch = max(BATCH, world.size)
    layers = [layer for layer in generator.modules() if isinstance(layer, SyncBatchNorm2d)]
    synchronised = any(layer.exchange.world.has_peers for layer in layers)
    first, count = share(batch, world.rank, world.size) if synchronised else (0, batch)
    everything = normal(seed, "calibration latents", 0, BATCHES * batch, size, weight.device).to(weight.dtype)
    if typical:
        everything = typical.beside(everything, 0)
    for latents in everything.split(batch):
        yield latents[first : first + count]


class AverageStatistics:
    """Keeps the statistics of the generator's average up to date, measured once at each step that needs them."""

    def __init__(self, seed: int, latent_size: int, world: World, typical: Classes | None = None) -> None:
        self._arguments = seed, latent_size, world, typical
        self._measured_at: int | None = None

    def ready(self, state: TrainState) -> None:
        """Measures the average's batch norm statistics, unless done at this step already. Every rank must call it."""
        if state.average is not None and self._measured_at != state.images_seen:
            calibrate_batch_norm(state.average, *self._arguments)
            self._measured_at = state.images_seen
