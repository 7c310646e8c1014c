"""Whether the next images have arrived, on all ranks or on none."""

from __future__ import annotations

import sys
import time

import torch

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.base.waiting import PATIENCE_SECONDS, waiting_line
from dcgan_dist.data.fetched_shards import FEWEST_BATCHES, FetchedShards
from dcgan_dist.distributed.world import World

MANY_BATCHES, STEPS_BETWEEN_CHECKS = 32, 16  # with many, no rank can run out of them before the next check


class SupplyLost(RunFailed):
    """The images do not come any more; the run can go on later from a checkpoint of this moment."""


class Supply:
    """Tells whether the next batch is there on all ranks, however slow a server is.

    A rank that waited inside a step would keep the others in a collective, until that runs out of time.
    """

    def __init__(self, shards: FetchedShards | None, world: World) -> None:
        """`shards`: what the batches are gathered from; None, on all ranks, if nothing has to arrive."""
        self._shards, self._world = shards, world
        self._steps_left = 0
        self._short_since: float | None = None  # Unix time
        self._told = False

    def ready(self) -> bool:
        """Whether a step can begin, on every rank alike. Call it before each.

        Raises SupplyLost, on every rank, if no more images will come on one of them.
        """
        self._steps_left -= 1
        if self._shards is None or self._steps_left > 0:
            return True
        ready, failure = self._shards.batches_ready(), self._shards.failure()
        few = ready < MANY_BATCHES
        short = few and ready < FEWEST_BATCHES
        shorts, fews, lost = self._world.sum(torch.tensor([int(short), int(few), int(failure is not None)])).tolist()
        if lost:
            why = next(one for one in self._world.gather_objects(failure) if one)
            raise SupplyLost(f"{why}; give the same command again to go on from the last checkpoint")
        self._steps_left = 1 if fews else STEPS_BETWEEN_CHECKS
        if not shorts:
            self._short_since, self._told = None, False
        return not shorts

    def wait(self) -> None:
        """Waits a moment for images, and says once, on one rank, if it takes long."""
        assert self._shards
        began = self._short_since = self._short_since or time.time()
        if self._world.is_main and not self._told and time.time() - began > PATIENCE_SECONDS:
            self._told = True
            print(waiting_line(f"images from {self._shards.cache.remote.url}", began), file=sys.stderr, flush=True)
        time.sleep(0.1)
