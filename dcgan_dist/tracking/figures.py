"""The figures of a row: means over its steps, speed and memory, where the wall time went, and a trace of some steps."""

from __future__ import annotations

import contextlib
import logging
import os
import resource
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile, schedule

from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)


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


class StageClock:
    """Adds up the seconds of each stage; at any moment exactly one of them is running.

    The first is "start", which began with the process: its imports count.
    """

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._stage = "start"
        self._since = time.monotonic() - _age_of_process()

    def enter(self, stage: str) -> None:
        """Ends the current stage and starts or continues another one."""
        now = time.monotonic()
        self._seconds[self._stage] = self._seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now

    @contextlib.contextmanager
    def during(self, stage: str) -> Iterator[None]:
        """Counts the block as `stage`, then returns to the stage before it."""
        before = self._stage
        self.enter(stage)
        try:
            yield
        finally:
            self.enter(before)

    def seconds(self) -> dict[str, float]:
        """Seconds by stage until now, in the order in which the stages first began, to 1/100."""
        self.enter(self._stage)
        return {stage: round(seconds, 2) for stage, seconds in self._seconds.items()}

    def __str__(self) -> str:
        """All stages in a line: `63 s: start 9.1, decode 3.0, train 48.2, ...`."""
        seconds = self.seconds()
        return f"{sum(seconds.values()):.0f} s: " + ", ".join(f"{stage} {took:.1f}" for stage, took in seconds.items())


def _age_of_process() -> float:
    """Seconds since this process was started; 0 where Linux's /proc does not tell."""
    with contextlib.suppress(OSError, ValueError, IndexError):
        started = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])  # field 22, in clock ticks
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        return max(0.0, uptime - started / os.sysconf("SC_CLK_TCK"))
    return 0.0


STEPS_BEFORE = 19  # what happens once, such as the recording of a CUDA graph, is over then


class StepProfile:
    """Records what host and device do during some steps and writes it once; does nothing for zero steps."""

    def __init__(self, folder: Path, steps: int, world: World) -> None:
        self._path = folder / f"rank-{world.rank}.json"
        self._profiler: profile | None = None
        self._written = False
        if steps:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (world.device.type == "cuda")
            self._profiler = profile(
                activities=activities,
                schedule=schedule(wait=STEPS_BEFORE - 1, warmup=1, active=steps, repeat=1),
                on_trace_ready=self._write,
            )
            self._profiler.start()

    @property
    def running(self) -> bool:
        """Whether steps are being recorded, or are going to be."""
        return self._profiler is not None and not self._written

    def step(self) -> None:
        """Reports that a step has finished."""
        if self._profiler is not None:
            self._profiler.step()

    def close(self) -> None:
        """Writes the trace recorded so far, if the run ended early."""
        if self._profiler is not None:
            self._profiler.stop()

    def _write(self, trace: torch.profiler.profile) -> None:
        self._written = True
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            trace.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as error:
            log.warning("could not write %s (%s); training goes on", self._path, error)
            return
        log.info("a trace of the steps is in %s; open it in ui.perfetto.dev", self._path)
