"""A rank's share of its machine: cores, free memory, and memory that is kept for the next step."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Iterator
from pathlib import Path

import torch

from dcgan_dist.distributed.world import World

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
