"""A watchdog on every rank: ends a run in which no step finishes any more and names the rank that is stuck."""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import torch
import torch.distributed as dist

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.base.waiting import PATIENCE_SECONDS, waiting_line
from dcgan_dist.distributed.leaving import leave_reason
from dcgan_dist.distributed.world import World

START_TIMEOUT_SECONDS = 600.0  # the first step may have to compile; ranks that wait give up after CONNECT_TIMEOUT
CULPRIT_FIRST_SECONDS = 5.0  # torchrun reports the rank that ends first, so ranks that only wait end later
SIGN_OF_LIFE_SECONDS = 1.0


def _kill_frozen_sibling(pid: int) -> None:
    """Kills a rank of this node that is stopped (SIGSTOP): torchrun's SIGTERM takes half a minute to reach it.

    Only a stopped process with the same torchrun above it is touched, whatever the number means on this node.
    """
    with contextlib.suppress(OSError, ValueError):
        state, parent = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[:2]
        if state in "Tt" and int(parent) == os.getppid():
            os.kill(pid, signal.SIGKILL)


def _own_connection() -> dist.Store:
    """The ranks' common store, over a connection that the main thread cannot block; torch 2.11 has only one."""
    store = dist.distributed_c10d._get_default_store()
    return store.clone() if hasattr(store, "clone") else store


class Heartbeat:
    """A thread that ends the process if `beat` has not been called for `timeout_seconds`.

    It distinguishes a stuck rank from one that waits for it: the stuck one ends at once, the others a little later.
    A rank that the system has stopped cannot end itself; the others notice that its signs of life have ceased.
    """

    def __init__(self, world: World, timeout_seconds: float, on_hang: Callable[[str], None]) -> None:
        """`on_hang` is called with the reason just before the process ends."""
        self._world = world
        self._timeout = timeout_seconds
        self._on_hang = on_hang
        self._main_thread = threading.main_thread().ident
        self._last = time.monotonic()
        self._started = self._paused = self._told = False
        self._over = threading.Event()
        self._store = _own_connection() if world.size > 1 else None
        self._thread = threading.Thread(target=self._watch, name="heartbeat", daemon=True)
        self._thread.start()

    def beat(self) -> None:
        """Reports that a step has finished."""
        if not self._started:
            self._started = True
            # Once training runs, a collective that takes much longer will never end.
            self._world.set_timeout(self._timeout + 60)
        self._last = time.monotonic()

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        """Suspends the watch during a long operation between two steps; the collectives' own timeout still applies."""
        self._paused = True
        try:
            yield
        finally:
            self._last = time.monotonic()  # first, or the watch may take the pause for silence
            self._paused = False

    def stop(self) -> None:
        """Stops watching. A thread that still used the store while Python exits would abort the process."""
        self._over.set()
        self._thread.join(timeout=5 * SIGN_OF_LIFE_SECONDS)

    def _watch(self) -> None:
        self._sign_of_life()
        while not self._over.wait(SIGN_OF_LIFE_SECONDS):
            self._sign_of_life()
            if self._paused:
                continue
            silence = time.monotonic() - self._last
            limit = self._timeout if self._started else max(self._timeout, START_TIMEOUT_SECONDS)
            if self._started and silence > PATIENCE_SECONDS:
                self._tell(limit)
            if silence > limit + (CULPRIT_FIRST_SECONDS if self._waits_for_others() else 0):
                self._end(f"no step has ended for {silence:.0f} seconds")

    def _tell(self, limit: float) -> None:
        """Logs once, on one rank, that a step takes long, well before the timeout ends the run."""
        silent = self._silent_ranks()
        if self._told or self._world.rank != self._first_rank_but(silent):
            return
        self._told = True
        began = time.time() - (time.monotonic() - self._last)
        who = ", ".join(name for name, _ in silent)
        advice = f"{who} gave no sign of life" if silent else "a long step, or a rank that is stuck"
        what = f"the end of a step on {self._world.size} ranks"
        print(waiting_line(what, began, limit, f"{advice} (run.hang_timeout_seconds)"), file=sys.stderr, flush=True)

    def _end(self, what: str) -> None:
        who = f"rank {self._world.rank} on {socket.gethostname()}"
        silent = self._silent_ranks()
        if silent:
            cause = f"{', '.join(name for name, _ in silent)} gave no sign of life"
        elif self._waits_for_others():
            cause = f"{who} was waiting for another rank"
        else:
            cause = f"{who} is stuck in its own code, see the stack above"
        faulthandler.dump_traceback(file=sys.stderr)
        print(f"error: {who}: {what}: {cause}", file=sys.stderr, flush=True)
        with contextlib.suppress(Exception):
            self._on_hang(f"{what}: {cause}")
        leave_reason(RunFailed(f"{who}: {what}: {cause}"))
        for _, pid in silent:
            _kill_frozen_sibling(pid)
        os._exit(1)

    def _waits_for_others(self) -> bool:
        """Whether the main thread is inside torch, which in a stuck run means in a collective."""
        frame = sys._current_frames().get(self._main_thread or 0)
        inside_torch = frame is not None and frame.f_code.co_filename.startswith(os.path.dirname(torch.__file__))  # noqa: PTH120
        return self._world.size > 1 and inside_torch

    def _sign_of_life(self) -> None:
        if self._store is not None:
            with contextlib.suppress(Exception):  # the store's host may be gone already
                sign = f"{time.time()} {os.getpid()} {socket.gethostname()}"
                self._store.set(f"alive/{self._world.rank}", sign)

    def _first_rank_but(self, silent: list[tuple[str, int]]) -> int:
        away = {name.split()[1] for name, _ in silent}
        return next(rank for rank in range(self._world.size) if str(rank) not in away)

    def _silent_ranks(self) -> list[tuple[str, int]]:
        """Ranks that have not given a sign of life for a while, in words, and their process numbers."""
        silent = []
        others = set(range(self._world.size)) - {self._world.rank}
        for rank in sorted(others if self._store is not None else ()):
            with contextlib.suppress(Exception):
                if self._store is not None and self._store.check([f"alive/{rank}"]):
                    seen, pid, host = self._store.get(f"alive/{rank}").decode().split(" ", 2)
                    if time.time() - float(seen) > 5 * SIGN_OF_LIFE_SECONDS:
                        silent.append((f"rank {rank} on {host}", int(pid)))
        return silent
