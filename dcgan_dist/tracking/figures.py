"""The figures of a row: means over its steps, how fast the run is, and what it waits for."""

from __future__ import annotations

import contextlib
import resource
import time
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from dcgan_dist.base.stage_clock import StageClock
from dcgan_dist.distributed.world import World


class Throughput:
    """Clocks between two rows of figures. Time spent on grids and checkpoints does not count as training."""

    def __init__(self, device: torch.device, ranks: int = 1, stages: StageClock | None = None) -> None:
        """`stages` is told what the pauses are for."""
        self.device = device
        self.stages = stages or StageClock()
        self.ranks = ranks
        self._reset()

    def _reset(self) -> None:
        self._start = time.perf_counter()
        self._waiting = self._pausing = 0.0
        self._images = 0

    @contextlib.contextmanager
    def waiting_for_data(self) -> Iterator[None]:
        """Counts the block as waiting for the next batch."""
        start = time.perf_counter()
        yield
        self._waiting += time.perf_counter() - start

    @contextlib.contextmanager
    def paused(self, stage: str) -> Iterator[None]:
        """Excludes the block from the figures and counts it as `stage`."""
        start = time.perf_counter()
        with self.stages.during(stage):
            yield
        self._pausing += time.perf_counter() - start

    def add(self, images: int) -> None:
        """Counts images of all ranks."""
        self._images += images

    def take_figures(self) -> dict[str, float]:
        """Returns the figures since the last call. Call it after a synchronisation, such as reading a metric."""
        seconds = max(time.perf_counter() - self._start - self._pausing, 1e-9)
        figures = {
            "speed/images_per_second": self._images / seconds,
            "speed/images_per_second_per_rank": self._images / seconds / self.ranks,
            "speed/data_wait_fraction": self._waiting / seconds,
            "memory/peak_gib": peak_memory_gib(self.device),
        }
        self._reset()
        return figures


def peak_memory_gib(device: torch.device) -> float:
    """Most memory this rank has used so far: on the GPU as torch counts it, on a CPU resident in the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**30
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 2**30  # Linux counts in KiB


class MetricWindow:
    """Sums of a few figures a step, weighted by images, and the number of images."""

    def __init__(self, names: Sequence[str], device: torch.device) -> None:
        self.names = tuple(names)
        self.sums = torch.zeros(len(self.names) + 1, dtype=torch.float64, device=device)

    def add(self, figures: Sequence[Tensor], images: int) -> None:
        """Adds one step: each figure is a scalar, the mean over this rank's `images` images."""
        self.sums[:-1].add_(torch.stack(list(figures)), alpha=images)
        self.sums[-1].add_(images)

    def sum_of(self, name: str) -> Tensor:
        """Returns this rank's sum of one figure, on the device."""
        return self.sums[self.names.index(name)]

    def collect(self, world: World) -> None:
        """Moves the sums of all ranks to rank 0."""
        world.sum(self.sums)
        if not world.is_main:
            self.sums.zero_()

    def take_means(self, world: World) -> dict[str, float]:
        """Returns the means over all ranks since the last call, by name, and empties the window."""
        *sums, images = world.sum(self.sums).tolist()
        self.sums.zero_()
        return {name: total / images for name, total in zip(self.names, sums, strict=True)}
