"""Spreads work on many images over ranks and cores so that the result does not depend on how it is spread.

A convolution's last bits may depend on how many images go through it together and on how many threads share them, and
a last bit can turn a pixel. So images always go through a network in the same chunks of 64, counted from position 0,
and every chunk on a single thread; ranks and cores only take more chunks at a time.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dcgan_dist.distributed.world import World

CHUNK = 64

Input = TypeVar("Input")


@dataclass(frozen=True)
class Workforce:
    """The ranks, and how many chunks each works on at a time; the same number on all of them."""

    world: World
    workers: int

    @classmethod
    def of(cls, world: World, cores: int) -> Workforce:
        """Uses all of a rank's cores on a CPU, one chunk at a time on a GPU. Limits torch to one thread per chunk."""
        torch.set_num_threads(1)
        torch.backends.cudnn.deterministic = True
        torch.backends.cudnn.benchmark = False
        workers = 1 if world.device.type == "cuda" else cores
        return cls(world, min(world.gather_objects(workers)))

    def chunk_starts(self, num_items: int) -> Iterator[int]:
        """First items of this rank's chunks; where they run out, the last again, so that all ranks keep step."""
        chunks = -(-num_items // CHUNK)
        workers = self._busy_workers(num_items)
        for first in range(0, chunks, self.world.size * workers):
            for worker in range(workers):
                yield min(first + self.world.rank * workers + worker, chunks - 1) * CHUNK

    def in_order(self, num_items: int, inputs: Iterator[Input], compute: Callable[[Input], Tensor]) -> Iterator[Tensor]:
        """What `compute` makes of all chunks, in the order of the items: portions [n, ...], the same on every rank.

        `inputs`: one for each of this rank's `chunk_starts`. `compute` returns [CHUNK, ...], on the rank's device; rows
        beyond `num_items` are dropped. The caller has to take every portion on every rank. Raises UserError, on every
        rank, if `compute` or `inputs` does on one.
        """
        workers = self._busy_workers(num_items)
        with ThreadPoolExecutor(workers, initializer=_work_on, initargs=(self.world.device,)) as pool:
            while num_items > 0:
                results = self.world.together(lambda: list(pool.map(compute, islice(inputs, workers))))
                portion = self.world.gather(torch.stack(results)).flatten(0, 2)  # ranks, workers, CHUNK
                yield portion[:num_items]
                num_items -= len(portion)

    def _busy_workers(self, num_items: int) -> int:
        chunks = -(-num_items // CHUNK)
        return min(self.workers, -(-chunks // self.world.size))


def _work_on(device: torch.device) -> None:
    """Turns a new thread to this rank's GPU: in each it is GPU 0 at first, and Triton starts its kernels on that."""
    if device.type == "cuda":
        torch.cuda.set_device(device)


_MALLOPT_TRIM_THRESHOLD, _MALLOPT_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
_LARGEST = 2**31 - 1


def take_share_of_cores(world: World) -> int:
    """Limits torch to this rank's share of the node's cores and returns their number.

    torchrun gives each of several ranks a single thread unless OMP_NUM_THREADS says otherwise.
    """
    cores = max(1, len(os.sched_getaffinity(0)) // world.local_size)
    if world.device.type == "cpu" and world.local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(cores)
    return cores


def free_host_memory() -> int:
    """Returns the bytes of memory this process may still use, on the machine or in its control group."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return min([free, *_free_in_control_groups(Path("/sys/fs/cgroup"), Path("/proc/self/cgroup"))])


def _free_in_control_groups(root: Path, own: Path) -> Iterator[int]:
    """What the process's control group and each one above it leave free; nothing without limits or control groups."""
    for entry in own.read_text().splitlines() if own.exists() else []:
        _, controllers, group = entry.split(":", 2)
        if not controllers:  # version 2
            yield from _free_along(root, group, "memory.max", "memory.current", "inactive_file")
        elif "memory" in controllers.split(","):  # version 1
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            yield from _free_along(root / "memory", group, *names)


def _free_along(root: Path, group: str, limit_name: str, used_name: str, cached_name: str) -> Iterator[int]:
    """What the limit of a control group, and of each one above it, leaves free."""
    own = root / group.lstrip("/")
    for folder in (own, *own.parents):
        limit, used = folder / limit_name, folder / used_name
        if folder.is_relative_to(root) and limit.exists() and limit.read_text().strip() != "max":
            # Cached files count as used and are given up when needed.
            cached = re.search(rf"^{cached_name} (\d+)$", (folder / "memory.stat").read_text(), re.MULTILINE)
            yield int(limit.read_text()) - int(used.read_text()) + int(cached.group(1) if cached else 0)


def keep_freed_memory() -> None:
    """Tells the C library to keep freed memory for reuse instead of returning it to the system.

    torch frees every activation of a step. By default glibc unmaps such large blocks, and the next step pays for each
    of their pages again: batch norm on a CPU then spends four fifths of its time in page faults.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc only
        library.mallopt(_MALLOPT_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_MALLOPT_TRIM_THRESHOLD, _LARGEST)
