"""What a rank takes of the machine it runs on: its share of the cores, and memory it does not give back."""

from __future__ import annotations

import ctypes
import os

import torch

from dcgan_dist.distributed.world import World

_MALLOPT_TRIM_THRESHOLD, _MALLOPT_MMAP_THRESHOLD = -1, -3  # names of glibc's mallopt(3)
_LARGEST = 2**31 - 1


def take_share_of_cores(world: World) -> int:
    """Gives torch this rank's part of the node's cores and returns how many they are.

    torchrun gives each of several ranks a single thread unless OMP_NUM_THREADS says otherwise.
    """
    cores = max(1, len(os.sched_getaffinity(0)) // world.local_size)
    if world.device.type == "cpu" and world.local_size > 1 and os.environ.get("OMP_NUM_THREADS", "1") == "1":
        torch.set_num_threads(cores)
    return cores


def keep_freed_memory() -> None:
    """Lets the C library use freed memory again instead of returning it to the system.

    torch frees every activation of a step. By default glibc unmaps such large blocks, and the next step pays for each
    of their pages again: batch norm on a CPU then spends four fifths of its time in page faults.
    """
    library = ctypes.CDLL(None)
    if hasattr(library, "mallopt"):  # glibc only
        library.mallopt(_MALLOPT_MMAP_THRESHOLD, _LARGEST)
        library.mallopt(_MALLOPT_TRIM_THRESHOLD, _LARGEST)
