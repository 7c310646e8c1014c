"""Work spread over several processes, none of which outlives the command."""

from __future__ import annotations

import errno
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from dcgan_dist.base.errors import UserError

WAITING_FOR_A_WORKER = 1  # jobs a worker; more would only take memory

Job = TypeVar("Job")
Result = TypeVar("Result")


class Engine(Protocol):
    """Runs a function on many jobs at a time."""

    def __call__(self, function: Callable[[Job], Result], jobs: Iterable[Job]) -> Iterator[Result]:
        """What the function makes of each job, in any order. Raises the first exception of a job, and UserError."""
        ...


def in_processes(function: Callable[[Job], Result], jobs: Iterable[Job], workers: int) -> Iterator[Result]:
    """What `function` makes of each job, in the order of the jobs; one worker is the command itself.

    The first exception of a job is raised here and ends all others. UserError if a worker was killed.
    """
    if workers == 1:
        yield from map(function, jobs)
        return
    pool = ProcessPoolExecutor(workers, multiprocessing.get_context("spawn"), _begin)
    waiting: deque[Future[Result]] = deque()
    try:
        for job in jobs:
            waiting.append(pool.submit(function, job))
            if len(waiting) > WAITING_FOR_A_WORKER * workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    except BrokenExecutor:
        raise UserError(
            "a worker process was killed (out of memory?); give the same command again, with fewer --workers if need "
            "be: what is finished is kept"
        ) from None
    finally:
        pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """Leaves Ctrl-C to the command, and lets no worker outlive a command that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_the_command, daemon=True).start()


def _leave_with_the_command() -> None:
    if command := multiprocessing.parent_process():
        command.join()
        os._exit(1)


def explain_os_error(error: OSError, out: Path) -> UserError:
    """One line for a file system that refuses."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        again = "make room and give the same command again: finished shards are kept"
        return UserError(f"{out}: no room to write ({error.strerror}); {again}")
    return UserError(f"{error.filename or out}: {error.strerror}")
