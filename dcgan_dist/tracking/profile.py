"""A trace of a few steps, for chrome://tracing or ui.perfetto.dev."""

from __future__ import annotations

import logging
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule

from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)

STEPS_BEFORE = 19  # what happens once, such as the recording of a CUDA graph, is over then


class StepProfile:
    """Records what host and device do during some steps and writes it once; does nothing for zero steps."""

    def __init__(self, folder: Path, steps: int, world: World) -> None:
        self._path = folder / f"rank-{world.rank}.json"
        self._profiler: profile | None = None
        if steps:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (world.device.type == "cuda")
            self._profiler = profile(
                activities=activities,
                schedule=schedule(wait=STEPS_BEFORE - 1, warmup=1, active=steps, repeat=1),
                on_trace_ready=self._write,
            )
            self._profiler.start()

    def step(self) -> None:
        """Reports that a step has finished."""
        if self._profiler is not None:
            self._profiler.step()

    def close(self) -> None:
        """Writes the trace recorded so far, if the run ended early."""
        if self._profiler is not None:
            self._profiler.stop()

    def _write(self, trace: torch.profiler.profile) -> None:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            trace.export_chrome_trace(str(self._path))
        except (OSError, RuntimeError) as error:
            log.warning("could not write %s (%s); training goes on", self._path, error)
            return
        log.info("a trace of the steps is in %s; open it in ui.perfetto.dev", self._path)
