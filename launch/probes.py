"""What only ranks can find out: whether they reach each other, and how fast they talk, decode and train."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import torch

from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import open_decoder
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import share
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed import world as world_module
from dcgan_dist.distributed.replicate import replicate
from dcgan_dist.distributed.world import World
from dcgan_dist.errors import UserError
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.gan.step import GanStep
from dcgan_dist.host import keep_freed_memory, take_share_of_cores
from dcgan_dist.resume import choose_global_batch
from dcgan_dist.state import initial_state
from launch.checks import Check

CONNECT_SECONDS = 30
MESSAGE_BYTES = 16 << 20  # about the gradients of a DCGAN
DECODED_IMAGES, DECODED_TOGETHER = 512, 64
CPU_IMAGES_A_STEP = 16


def connect() -> World:
    """Joins the other ranks; RuntimeError with the reason if they do not come."""
    world_module.CONNECT_TIMEOUT = timedelta(seconds=CONNECT_SECONDS)  # a run waits longer: its nodes start apart
    world = World.connect()
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


def _seconds_each(times: int, work: object, world: World) -> float:
    assert callable(work)
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
    try:
        shards = MappedShards(folder, read_manifest(folder))
        decode = open_decoder(config.data, shards, world, take_share_of_cores(world))
        count = min(DECODED_IMAGES, len(shards)) // DECODED_TOGETHER * DECODED_TOGETHER
        batches = decode(range(start, start + DECODED_TOGETHER) for start in range(0, count, DECODED_TOGETHER))
        next(batches, None)
        begin = time.perf_counter()
        done = sum(len(pixels) for pixels in batches)
        _finish(world)
    except UserError as error:
        return Check("decoding", "fail", str(error))
    speed = done / (time.perf_counter() - begin)
    return Check("decoding", "ok", f"{speed:.0f} images/s a rank" if done else "too few images to measure")


def measure_training(config: TrainConfig, num_samples: int, world: World) -> tuple[Check, int | None, float | None]:
    """Trains a few steps on noise; also the images the run will take and how many a second all ranks do together."""
    try:
        global_batch = choose_global_batch(config, world, None, num_samples)
    except UserError as error:
        return Check("training", "fail", str(error)), None, None
    count = share(global_batch, world.rank, world.size)[1]
    steps = 20 if world.device.type == "cuda" else 2
    if world.device.type == "cpu":
        count = min(count, CPU_IMAGES_A_STEP)  # a step on a CPU takes as long as its images
    try:
        seconds = _seconds_a_step(config, count, steps, world)
    except torch.OutOfMemoryError:
        advice = f"lower --data.batch_size_per_rank, {count} now"
        return Check("training", "fail", "a step does not fit into the GPU's memory", advice), None, None
    images = config.train.total_images or round(config.train.epochs * num_samples)
    speed = count * world.size / seconds
    return Check("training", "ok", f"{speed:.0f} images/s on {world.size} rank(s), {count} a rank"), images, speed


def _seconds_a_step(config: TrainConfig, count: int, steps: int, world: World) -> float:
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
    return _seconds_each(steps, lambda: step(pixels, latents, latents), world)
