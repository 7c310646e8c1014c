"""What torchrun starts for test_meeting.py: two ranks, of which the second does what WHAT says.

torchrun --nproc_per_node 2 -m tests.distributed.waiting_script WHAT
"""

from __future__ import annotations

import os
import signal
import sys
import time

import torch

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.distributed.leaving import exit_as_rank, leave_after_the_culprit, leave_out_of_memory
from dcgan_dist.distributed.world import World

LATE_SECONDS = 12.0


def out_of_memory(world: World) -> None:
    """The first only ends because of it."""
    if world.rank == 1:
        leave_out_of_memory(world, torch.OutOfMemoryError("CUDA out of memory"))
    try:
        world.gather_objects(None)
    except RuntimeError as error:
        leave_after_the_culprit(world, error)


def fails(world: World) -> None:
    """The first is ended by torchrun in the same second."""
    if world.rank == 1:
        raise RunFailed("the disk of rank 1 is full")
    time.sleep(60)


def late(world: World) -> None:
    """It comes to a meeting when the first has waited for more than ten seconds."""
    if world.rank == 1:
        time.sleep(LATE_SECONDS)
    world.gather_objects(None)


def frozen(world: World) -> None:
    """The system stops it in the middle of the training; the first sets it going again."""
    heartbeat = Heartbeat(world, 60, print)
    pids = world.gather_objects(os.getpid())
    heartbeat.beat()
    if world.rank == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
    else:
        time.sleep(LATE_SECONDS)
        os.kill(pids[1], signal.SIGCONT)
    world.gather_objects(None)
    heartbeat.stop()


def main() -> int:
    """Meets the other rank and does what is asked for."""
    world = World.connect()
    {"out_of_memory": out_of_memory, "fails": fails, "late": late, "frozen": frozen}[sys.argv[1]](world)
    world.close()
    return 0


if __name__ == "__main__":
    exit_as_rank(main)
