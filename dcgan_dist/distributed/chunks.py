"""Spreads work on many images over ranks and cores so that the result does not depend on how it is spread.

A convolution's last bits may depend on how many images go through it together and on how many threads share them, and
a last bit can turn a pixel. So images always go through a network in the same chunks of 64, counted from position 0,
and every chunk on a single thread; ranks and cores only take more chunks at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
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
        with ThreadPoolExecutor(workers) as pool:
            while num_items > 0:
                results = self.world.together(lambda: list(pool.map(compute, islice(inputs, workers))))
                portion = self.world.gather(torch.stack(results)).flatten(0, 2)  # ranks, workers, CHUNK
                yield portion[:num_items]
                num_items -= len(portion)

    def _busy_workers(self, num_items: int) -> int:
        chunks = -(-num_items // CHUNK)
        return min(self.workers, -(-chunks // self.world.size))
