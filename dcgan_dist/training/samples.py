"""One latent's way to a picture: drawn from the seed, through the generator, onto a grid, into a PNG."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import torch
from torch import Tensor, nn

from dcgan_dist.base.counter_random import normal
from dcgan_dist.base.grid import save_grid
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.step import to_pixels

log = logging.getLogger(__name__)

MOST_PENDING_GRIDS = 8  # more of them, and the disk is stuck: then training waits for it


class FixedLatentSampler:
    """Draws the same latents again and again, so that one sees the generator learn. Each rank draws its share."""

    def __init__(self, seed: int, num_images: int, latent_size: int, image_size: int, world: World) -> None:
        self.world = world
        self.image_size = image_size
        self.counts = [share(num_images, rank, world.size)[1] for rank in range(world.size)]
        first, count = share(num_images, world.rank, world.size)
        self.latents = normal(seed, "fixed latents", first, count, latent_size, world.device)

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

    def wait(self) -> None:
        """Returns when no grid is being written any more."""
        self.wait_for_those_so_far()()

    def wait_for_those_so_far(self) -> Callable[[], None]:
        """What waits, when it is called, for the grids that were given until now and for no later one."""
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
