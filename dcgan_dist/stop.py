"""Requests to stop, heard by one rank and obeyed by all at the same step."""

from __future__ import annotations

import os
import signal
import threading
import time
from types import FrameType

from dcgan_dist.distributed.world import World

SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT)
GRACE_SECONDS = 20.0  # torchrun kills a worker 30 seconds after asking it to stop
# One Ctrl-C or scancel reaches a worker twice, directly and through torchrun; that is still one request.
ECHO_SECONDS = 3.0


class StopRequest:
    """Notes the signals that mean "checkpoint and go"; a second one ends the process at once.

    If the other ranks are gone, no agreement can be reached: a timer then ends the process after `GRACE_SECONDS`
    without one.
    """

    def __init__(self, steps_between_checks: int) -> None:
        self.steps_between_checks = steps_between_checks
        self.reason: str | None = None
        self._timer: threading.Timer | None = None
        self._steps = 0
        self._process = os.getpid()
        self._heard_at = 0.0

    def listen(self) -> None:
        """Installs the signal handlers; call it in the main thread."""
        for number in SIGNALS:
            signal.signal(number, self._hear)

    def _hear(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a forked helper process, which has nothing to save
            return
        if self.reason is not None:
            if time.monotonic() - self._heard_at > ECHO_SECONDS:
                os._exit(128 + number)
            return
        self._heard_at = time.monotonic()
        self.reason = signal.Signals(number).name
        self._timer = threading.Timer(GRACE_SECONDS, os._exit, args=(128 + number,))
        self._timer.daemon = True
        self._timer.start()

    def agreed(self, world: World) -> bool:
        """True on every rank, at the same step, once one rank has been asked to stop. Call it before each step."""
        self._steps += 1
        if (self._steps - 1) % self.steps_between_checks:
            return False
        if not world.any(self.reason is not None):
            return False
        reasons = world.gather_objects(self.reason)
        self.reason = next(reason for reason in reasons if reason is not None)
        if self._timer is not None:
            self._timer.cancel()
        return True
