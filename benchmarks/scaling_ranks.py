"""What each rank of `benchmarks.scaling` runs under torchrun."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.ours import Ours
from dcgan_dist.config import TrainSection
from dcgan_dist.distributed.world import World


def main(out: str, batch: int, threads: int, steps: int) -> None:
    """Times steps and sums; rank 0 writes them."""
    torch.set_num_threads(threads)
    world = World.connect()

    def seconds(action: Callable[[], object]) -> float:
        times = []
        for turn in range(steps + 2):
            world.any(False)  # all begin together
            start = time.perf_counter()
            action()
            if world.device.type == "cuda":
                torch.cuda.synchronize()
            if turn >= 2:
                times.append(time.perf_counter() - start)
        return statistics.median(times)

    def a_step(global_batch: int) -> float:
        return seconds(Ours(None, global_batch, world, TrainSection(), threads).step)

    ours = Ours(None, batch * world.size, world, TrainSection(), threads)
    weights = [
        parameter for group in (ours.state.generator, ours.state.discriminator) for parameter in group.parameters()
    ]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    small, large = torch.zeros(1024, device=world.device), torch.zeros(size // 4, device=world.device)
    found = {
        "weak": seconds(ours.step),
        "strong": a_step(batch),
        "half": a_step(batch * world.size // 2),
        "small sum": seconds(lambda: world.sum(small)),
        "large sum": seconds(lambda: world.sum(large)),
        "gradient bytes": float(size),
    }
    slowest = {name: max(values) for name, values in _by_name(world.gather_objects(found)).items()}
    if world.is_main:
        Path(out).write_text(json.dumps(slowest))
    world.close()


def _by_name(rows: list[dict[str, float]]) -> dict[str, list[float]]:
    return {name: [row[name] for row in rows] for name in rows[0]}


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
