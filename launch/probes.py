"""What only ranks can find out: whether they reach each other, and how fast they talk, decode and train."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta

import torch
from torch import Tensor

from dcgan_dist.config import DataConfig, TrainConfig
from dcgan_dist.data.loader import PixelSource, open_decoder, open_shards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.data.step_images import step_images
from dcgan_dist.distributed.leaving import is_out_of_memory
from dcgan_dist.distributed.workforce import keep_freed_memory, take_share_of_cores
from dcgan_dist.distributed.world import World
from dcgan_dist.training.by_position import Rates, StepInputs
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE, choose_kernels, open_update
from dcgan_dist.training.plan import Plan
from dcgan_dist.training.state import initial_state
from launch.checks import Check

CONNECT_SECONDS = 30
SLOWEST_NODE_SECONDS = 300.0  # what others wait for a node with a slow disk
MESSAGE_BYTES = 16 << 20  # about the gradients of a DCGAN
DECODED_IMAGES, DECODED_TOGETHER = 512, 64
MEASURED_SECONDS, MOST_STEPS = 3.0, 100  # of training, after it has warmed up


def connect() -> World:
    """Joins the other ranks; RuntimeError with the reason if they do not come."""
    world = World.connect(timedelta(seconds=CONNECT_SECONDS))  # a run waits longer: its nodes start apart
    if world.size > 1:
        world.set_timeout(SLOWEST_NODE_SECONDS)
    keep_freed_memory()
    return world


def check_all_reduce(world: World) -> Check:
    """Adds up over all ranks, checks the sum, and measures how long it takes."""
    if world.size == 1:
        return Check("all-reduce", "ok", "one rank: nothing to send")
    message = torch.full([MESSAGE_BYTES // 4], float(world.rank + 1), device=world.device)
    expected = world.size * (world.size + 1) / 2
    if not bool((world.sum(message) == expected).all()):
        return Check("all-reduce", "fail", f"a sum over {world.size} ranks is wrong", "this node's memory or network")
    world.sum(message[:1])
    large = _seconds_each(5, lambda: world.sum(message), world)
    small = _seconds_each(50, lambda: world.sum(message[:1]), world)
    speed = f"{MESSAGE_BYTES >> 20} MiB in {1e3 * large:.1f} ms, one number in {1e6 * small:.0f} us"
    return Check("all-reduce", "ok", f"{world.size} ranks of {world.device.type}: sum is right, {speed}")


def _seconds_each(times: int, work: Callable[[], object], world: World) -> float:
    _finish(world)
    begin = time.perf_counter()
    for _ in range(times):
        work()
    _finish(world)
    return (time.perf_counter() - begin) / times


def _finish(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def check_decoding(data: DataConfig, world: World) -> Check:
    """Decodes some images as the run will; the first batch, in which DALI builds its pipeline, is not counted."""
    shards = open_shards(data, read_manifest(data.shards), world)
    decode = open_decoder(data, shards, world, take_share_of_cores(world))
    together = min(DECODED_TOGETHER, len(shards))
    count = min(DECODED_IMAGES, len(shards)) // together * together
    batches = decode(range(start, start + together) for start in range(0, count, together))
    next(batches, None)
    begin = time.perf_counter()
    done = sum(len(pixels) for pixels in batches)
    _finish(world)
    speed = done / (time.perf_counter() - begin)
    return Check("decoding", "ok", f"{speed:.0f} images/s a rank" if done else "too few images to measure")


class Rehearsal:
    """Steps of the run, made of the parts that training uses; only its images are noise."""

    def __init__(self, config: TrainConfig, plan: Plan, world: World) -> None:
        choose_kernels(config.train)
        self._world = world
        self._state = initial_state(config, world, plan.precision, plan.num_classes)
        numbers = plan.numbers(config, world)
        images = step_images(_noise(config.data.image_size, world), plan.batches, images_seen=0)
        self._inputs = StepInputs(images, numbers, Rates([], plan.total_images, 0.0), images_seen=0)
        self._update = open_update(config, self._state, plan.precision, self._inputs, plan.batches, world)
        self._global_batch = plan.batches.global_batch

    def step(self) -> None:
        """One step; on a GPU it may still be going on."""
        self._inputs.prepare(self._state.images_seen, 1)
        self._update()
        self._state.images_seen += self._global_batch

    def warm_up(self) -> None:
        """Takes steps until the next is like all that follow it: on a GPU until they are replayed as a graph."""
        for _ in range(STEPS_BEFORE_CAPTURE + 1 if self._world.device.type == "cuda" else 1):
            self.step()
        _finish(self._world)

    def close(self) -> None:
        """Frees what the steps held on the device."""
        self._update.close()


def _noise(size: int, world: World) -> PixelSource:
    """Random images in the place of a decoder or a cache."""

    def draw(batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        for batch in batches:
            yield torch.randint(0, 256, [len(batch), size, size, 3], dtype=torch.uint8, device=world.device)

    return draw


def check_memory(config: TrainConfig, plan: Plan, world: World) -> Check:
    """Takes this rank's steps without the others: one that has no room must not leave others waiting inside."""
    try:
        rehearsal = Rehearsal(config, plan, world.alone())
        rehearsal.warm_up()
        rehearsal.close()
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        where = "the GPU's memory" if world.device.type == "cuda" else "memory"
        advice = (
            f"lower --data.batch_size_per_rank, {plan.batches.count} images a rank now, or set --train.accumulate "
            f"{2 * config.train.accumulate} --train.batch_norm local"
        )
        return Check("training", "fail", f"a step does not fit into {where}", advice)
    return Check("training", "ok", "a step fits")


def measure_training(config: TrainConfig, plan: Plan, world: World) -> tuple[Check, float]:
    """Trains some steps on noise; also how many images a second all ranks do together."""
    if world.device.type == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats(world.device)
    rehearsal = Rehearsal(config, plan, world)
    rehearsal.warm_up()
    once = _seconds_each(1, rehearsal.step, world)
    steps = world.broadcast_object(max(1, min(MOST_STEPS, int(MEASURED_SECONDS / once))))
    speed = plan.batches.global_batch / _seconds_each(steps, rehearsal.step, world)
    rehearsal.close()
    found = f"{speed:.0f} images/s on {world.size} rank(s), {plan.batches.count} a rank{_peak_memory(world)}"
    return Check("training", "ok", found), speed


def _peak_memory(world: World) -> str:
    if world.device.type != "cuda":
        return ""
    return f", {torch.cuda.max_memory_reserved(world.device) / 2**30:.1f} GiB of GPU memory besides cached images"
