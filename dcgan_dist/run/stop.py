"""Requests to stop, heard by one rank and obeyed by all at the same step."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from pathlib import Path
from types import FrameType

import torch

from dcgan_dist.base.errors import Interrupted
from dcgan_dist.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP)
GRACE_SECONDS = 20.0  # torchrun, and SLURM after SIGTERM, kill a rank 30 seconds after asking it to stop
# One Ctrl-C or scancel reaches a worker twice, directly and through torchrun; that is still one request.
ECHO_SECONDS = 3.0


def grace_seconds(number: int) -> float:
    """How long a rank may take to stop after a signal.

    SIGUSR2 announces a time limit well before it, so that a score may end first; torchrun then kills after the time in
    its own variable.
    """
    shutdown_seconds = float(os.environ.get("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "30"))
    return max(GRACE_SECONDS, shutdown_seconds - 10) if number == signal.SIGUSR2 else GRACE_SECONDS


class StopRequest:
    """A signal, a file named STOP in the run folder, or a time limit: "checkpoint and go".

    A second signal ends the process at once. If the other ranks are gone, no agreement can be reached: a timer then
    ends the process `grace_seconds` after the signal.
    """

    def __init__(self, stop_file: Path, time_limit_minutes: float | None, most_steps_between_checks: int) -> None:
        """`most_steps_between_checks`: fewer where steps are so long that it would take more than a second."""
        self.stop_file = stop_file
        self.most_steps_between_checks = most_steps_between_checks
        self.reason: str | None = None
        self._deadline = None if time_limit_minutes is None else time.monotonic() + 60 * time_limit_minutes
        self._timer: threading.Timer | None = None
        self._steps = self._next_check = 0
        self._checked = 0, time.monotonic()  # at which step, when
        self._process = os.getpid()
        self._heard_at = 0.0

    def listen(self) -> None:
        """Installs the signal handlers; call it in the main thread. What nohup has turned off stays off."""
        for number in SIGNALS:
            if signal.getsignal(number) is not signal.SIG_IGN:
                signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked helper process, which has nothing to save
            return
        if self._timer is not None:
            if time.monotonic() - self._heard_at > ECHO_SECONDS:
                os._exit(128 + number)
            return
        self._heard_at = time.monotonic()
        self.reason = signal.Signals(number).name
        self._timer = threading.Timer(grace_seconds(number), os._exit, args=(128 + number,))
        self._timer.daemon = True
        self._timer.start()

    def agreed(self, world: World) -> bool:
        """True on every rank, at the same step, once one rank has been asked to stop. Call it before each step."""
        self._steps += 1
        if self._steps < self._next_check:
            return False
        if self.reason is None and world.is_main:
            self.reason = self._other_reason()
        pause = self._steps_a_second() if world.is_main else 0
        asked, pause = world.sum(torch.tensor([int(self.reason is not None), pause])).tolist()
        self._next_check = self._steps + pause
        if not asked:
            return False
        reasons = world.gather_objects(self.reason)
        self.reason = next(reason for reason in reasons if reason is not None)
        if self._timer is not None:
            self._timer.cancel()
        return True

    def raise_if_asked(self) -> None:
        """Raises Interrupted if this rank was asked to stop; for the time before the first step."""
        if self.reason is not None:
            raise Interrupted(self.reason)

    def raise_if_asked_before_the_first_step(self) -> None:
        """The same where it may also be called later, when all ranks have to agree: then it does nothing."""
        if self._steps == 0:
            self.raise_if_asked()

    def _steps_a_second(self) -> int:
        """By those since the last check; at least one, at most what was given."""
        steps, seconds = self._steps - self._checked[0], time.monotonic() - self._checked[1]
        self._checked = self._steps, time.monotonic()
        return max(1, min(self.most_steps_between_checks, int(steps / max(seconds, 1e-6))))

    def _other_reason(self) -> str | None:
        with contextlib.suppress(OSError):  # a file system that does not answer is no request
            if self.stop_file.exists():
                self.stop_file.unlink()  # the run may be started again
                return "the STOP file"
        if self._deadline is not None and time.monotonic() > self._deadline:
            return "the time limit"
        return None
