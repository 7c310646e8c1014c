"""Where the wall time of a start goes: one stage at a time, in seconds. Standard library only."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path


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
