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
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE


def main(out: str, batch: int, threads: int, turns: int) -> None:
    """Times steps and sums; rank 0 writes them."""
    torch.set_num_threads(threads)
    world = World.connect()
    batches = {"weak": batch * world.size}
    if world.size == 1:
        batches["half"] = max(1, batch // 2)
    elif world.size <= batch:
        batches["strong"] = batch
    steps = {name: Ours(None, images, world, TrainSection(), threads) for name, images in batches.items()}
    state = steps["weak"].state
    weights = [weight for network in (state.generator, state.discriminator) for weight in network.parameters()]
    size = sum(weight.numel() * weight.element_size() for weight in weights)
    small, large = torch.zeros(1024, device=world.device), torch.zeros(size // 4, device=world.device)
    actions: dict[str, Callable[[], object]] = {name: ours.step for name, ours in steps.items()}
    actions |= {"small sum": lambda: world.sum(small), "large sum": lambda: world.sum(large)}
    found = {"gradient bytes": float(size), **time_in_turns(actions, world, turns)}
    if world.size == 1:
        found["strong"] = found["weak"]  # the same work
    rows = world.gather_objects(found)
    slowest = {name: max(row[name] for row in rows) for name in found}
    if world.is_main:
        Path(out).write_text(json.dumps(slowest))
    for ours in steps.values():
        ours.update.close()
    world.close()


def time_in_turns(actions: dict[str, Callable[[], object]], world: World, turns: int) -> dict[str, float]:
    """Median seconds of each action; one after the other, so that all see the same drifts of the machine's speed."""
    on_gpu = world.device.type == "cuda"
    warm_up = STEPS_BEFORE_CAPTURE + 2 if on_gpu else 2
    seconds: dict[str, list[float]] = {name: [] for name in actions}
    for turn in range(warm_up + turns):
        for name, action in actions.items():
            world.any(False)  # all begin together
            start = time.perf_counter()
            action()
            if on_gpu:
                torch.cuda.synchronize()
            if turn >= warm_up:
                seconds[name].append(time.perf_counter() - start)
    return {name: statistics.median(times) for name, times in seconds.items()}


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:5]))
