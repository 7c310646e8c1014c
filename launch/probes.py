"""What only ranks can find out: whether they reach each other, and how fast they talk, decode and train."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import torch

from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import open_decoder
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import share
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed import world as world_module
from dcgan_dist.distributed.heartbeat import set_collective_timeout
from dcgan_dist.distributed.replicate import replicate
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.gan.step import GanStep
from dcgan_dist.host import keep_freed_memory, take_share_of_cores
from dcgan_dist.resume import choose_global_batch
from dcgan_dist.state import initial_state
from launch.checks import Check

CONNECT_SECONDS = 30
SLOWEST_NODE_SECONDS = 300.0  # what others wait for a node with a slow disk
MESSAGE_BYTES = 16 << 20  # about the gradients of a DCGAN
DECODED_IMAGES, DECODED_TOGETHER = 512, 64
CPU_IMAGES_A_STEP = 16


def connect() -> World:
    """Joins the other ranks; RuntimeError with the reason if they do not come."""
    world_module.CONNECT_TIMEOUT = timedelta(seconds=CONNECT_SECONDS)  # a run waits longer: its nodes start apart
    world = World.connect()
    if world.size > 1:
        set_collective_timeout(SLOWEST_NODE_SECONDS)
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
    large = _seconds_each(5, lambda: world.sum(message), world)
    small = _seconds_each(50, lambda: world.sum(message[:1]), world)
    speed = f"{MESSAGE_BYTES >> 20} MiB in {1e3 * large:.1f} ms, one number in {1e6 * small:.0f} us"
    return Check("all-reduce", "ok", f"{world.size} ranks of {world.device.type}: sum is right, {speed}")


def _seconds_each(times: int, work: Callable[[], object], world: World) -> float:
    work()
    _finish(world)
    begin = time.perf_counter()
    for _ in range(times):
        work()
    _finish(world)
    return (time.perf_counter() - begin) / times


def _finish(world: World) -> None:
    if world.device.type == "cuda":
        torch.cuda.synchronize(world.device)


def check_decoding(config: TrainConfig, world: World) -> Check:
    """Decodes some images as the run will; the first batch, in which DALI builds its pipeline, is not counted."""
    folder = Path(config.data.shards)
    shards = MappedShards(folder, read_manifest(folder))
    decode = open_decoder(config.data, shards, world, take_share_of_cores(world))
    together = min(DECODED_TOGETHER, len(shards))
    count = min(DECODED_IMAGES, len(shards)) // together * together
    batches = decode(range(start, start + together) for start in range(0, count, together))
    next(batches, None)
    begin = time.perf_counter()
    done = sum(len(pixels) for pixels in batches)
    _finish(world)
    speed = done / (time.perf_counter() - begin)
    return Check("decoding", "ok", f"{speed:.0f} images/s a rank" if done else "too few images to measure")


def check_memory(config: TrainConfig, num_samples: int, world: World) -> Check:
    """Takes a step on noise by itself: a rank that has no room for it must not leave others waiting inside one."""
    count = _images_a_step(config, num_samples, world)
    try:
        _step(config, count, world.alone())()
    except torch.OutOfMemoryError:
        advice = f"lower --data.batch_size_per_rank, {count} images a rank now"
        return Check("training", "fail", "a step does not fit into the GPU's memory", advice)
    torch.cuda.empty_cache()
    return Check("training", "ok", "a step fits")


def measure_training(config: TrainConfig, num_samples: int, world: World) -> tuple[Check, int, float]:
    """Trains a few steps on noise; also the images the run will take and how many a second all ranks do together."""
    count = _images_a_step(config, num_samples, world)
    steps = 20 if world.device.type == "cuda" else 2
    speed = count * world.size / _seconds_each(steps, _step(config, count, world), world)
    images = config.train.total_images or round(config.train.epochs * num_samples)
    return Check("training", "ok", f"{speed:.0f} images/s on {world.size} rank(s), {count} a rank"), images, speed


def _images_a_step(config: TrainConfig, num_samples: int, world: World) -> int:
    """This rank's. Raises UserError, on every rank, if the batch does not fit the ranks or the data."""
    count = share(choose_global_batch(config, world, None, num_samples), world.rank, world.size)[1]
    return min(count, CPU_IMAGES_A_STEP) if world.device.type == "cpu" else count  # a CPU takes long for more


def _step(config: TrainConfig, count: int, world: World) -> Callable[[], object]:
    """A step of the training on `count` images of noise, to be taken any number of times."""
    name = config.train.precision
    precision = Precision(best_precision(world.device) if name == "auto" else name, world.device)
    state = initial_state(config, world, precision)
    step = GanStep(
        replicate(state.generator, world),
        replicate(state.discriminator, world),
        state.generator_optimizer,
        state.discriminator_optimizer,
        state.generator_scaler,
        state.discriminator_scaler,
        precision,
    )
    size = config.data.image_size
    pixels = torch.randint(0, 256, [count, size, size, 3], dtype=torch.uint8, device=world.device).permute(0, 3, 1, 2)
    latents = torch.randn(count, config.model.latent_size, device=world.device, dtype=precision.weights)
    return lambda: step(pixels, latents, latents)
