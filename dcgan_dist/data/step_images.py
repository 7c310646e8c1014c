"""The images of each step, by its position alone: the host has nothing to say between two steps out of the cache."""

from __future__ import annotations

import itertools
from typing import Protocol

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import stream_key
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.pixel_cache import CachedPixels, PixelSource
from dcgan_dist.data.sample_order import epoch_order, flips
from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.gan.fast.blocks import image_kernels


class StepImages(Protocol):
    """This rank's images of the steps to come."""

    def prepare(self, images_seen: int, steps: int) -> int:
        """Does the host's part for the steps from this position on; returns for how many of `steps`, at least one."""
        ...

    def at(self, position: Tensor) -> Tensor:
        """Images of the step at `position`, int64 [] on the device: uint8 [count, 3, size, size], channels last.

        The step must have been prepared. All of it happens on the device, in the order of its other work.
        """
        ...


def step_images(source: PixelSource, plan: BatchPlan, images_seen: int) -> StepImages:
    """Images from this position on, out of the cache, if `source` is one, else as they are decoded."""
    if isinstance(source, CachedPixels):
        return CachedImages(source, plan)
    return StreamedImages(source, plan, images_seen)


class EpochOrders:
    """The orders of two epochs on the device, to look up which image is at a position."""

    def __init__(self, plan: BatchPlan, device: torch.device) -> None:
        self._plan = plan
        # A step may reach into the next epoch: an even epoch's order lies in the first half, an odd one's behind it.
        self.both = torch.zeros(2 * plan.num_samples, dtype=torch.int64, device=device)
        self._epochs = [-1, -1]
        self._places = torch.arange(plan.first, plan.first + plan.count, device=device)

    def prepare(self, images_seen: int, steps: int) -> int:
        """Brings the orders of the epochs to the device; steps may reach into the next one, but not further."""
        samples, batch = self._plan.num_samples, self._plan.global_batch
        epoch = images_seen // samples
        steps = min(steps, ((epoch + 2) * samples - images_seen) // batch)
        for needed in {epoch, (images_seen + steps * batch - 1) // samples}:
            half = needed % 2
            if self._epochs[half] != needed:
                order = epoch_order(self._plan.seed, samples, needed)
                self.both[half * samples : (half + 1) * samples].copy_(order)
                self._epochs[half] = needed
        return steps

    def ids(self, position: Tensor) -> Tensor:
        """Numbers of this rank's images in the step at `position`: int64 [count]."""
        return self.both.index_select(0, (self._places + position) % len(self.both))


class CachedImages:
    """Looks up in the cache what the order of the epoch has at a position."""

    def __init__(self, cache: CachedPixels, plan: BatchPlan) -> None:
        self._cache, self._plan = cache, plan
        self._orders = EpochOrders(plan, cache.pixels.device)

    def prepare(self, images_seen: int, steps: int) -> int:
        """See `EpochOrders`."""
        return self._orders.prepare(images_seen, steps)

    def at(self, position: Tensor) -> Tensor:
        """See `StepImages`."""
        plan = self._plan
        if kernels_run_on(position.device):
            key = stream_key(plan.seed, "flip") if plan.flip else None
            pixels = image_kernels().take(self._cache.pixels, self._orders.both, position, plan.first, plan.count, key)
            return pixels.permute(0, 3, 1, 2)
        return _as_batch(self._cache.of(self._orders.ids(position)), plan, position)


class StreamedImages:
    """Takes each batch from the decoder when it is due."""

    def __init__(self, source: PixelSource, plan: BatchPlan, images_seen: int) -> None:
        positions = itertools.count(images_seen, plan.global_batch)
        self._batches = source(plan.ids(position) for position in positions)
        self._plan, self._pixels = plan, torch.empty(0)

    def prepare(self, images_seen: int, steps: int) -> int:
        """Waits for the next batch; they come in their order."""
        pixels = next(self._batches)
        if not len(self._pixels):  # a CUDA graph finds every batch in the same place
            self._pixels = torch.empty_like(pixels)
        self._pixels.copy_(pixels)
        return 1

    def at(self, position: Tensor) -> Tensor:
        """See `StepImages`."""
        return _as_batch(self._pixels, self._plan, position)


def _as_batch(pixels: Tensor, plan: BatchPlan, position: Tensor) -> Tensor:
    """Images [n, size, size, 3] as a batch [n, 3, size, size], some of them mirrored if the plan says so."""
    if plan.flip:
        pixels = mirror(pixels, flips(plan.seed, position + plan.first, plan.count, pixels.device))
    return pixels.permute(0, 3, 1, 2)


def mirror(pixels: Tensor, chosen: Tensor) -> Tensor:
    """Images [n, height, width, 3] with left and right exchanged where `chosen` [n] is true."""
    return torch.where(chosen[:, None, None, None], pixels.flip(2), pixels)
