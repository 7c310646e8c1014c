"""What only a GPU can show: its decoder, its graphs, and that the host does not wait for it."""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
import torch

from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.loader import BatchPlan, CachedPixels, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.data.step_images import step_images
from dcgan_dist.gan.discriminator import singular_vectors
from dcgan_dist.gan.precision import Precision, PrecisionName, best_precision
from dcgan_dist.training.by_position import Rates, StepInputs, StepNumbers
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE, CapturedUpdate, open_update
from dcgan_dist.training.plan import settle
from dcgan_dist.training.samples import copy_to_host, spread
from dcgan_dist.training.state import TrainState, initial_state
from launch import probes
from tests.given import batches_from, given_inputs, random_classes
from tests.gpu.device import ALONE, DEVICE, needs_gpu

pytestmark = needs_gpu

GPU = DEVICE
ONE_SWITCH: tuple[dict[str, Any], ...] = ({"r1_gamma": 0.1}, {"spectral_norm": True}, {"augment": True, "warmup": 0.5})
EVERY_SWITCH: dict[str, Any] = {name: value for one in ONE_SWITCH for name, value in one.items()}
IN_PARTS = ({"accumulate": 2}, {"accumulate": 2, "num_classes": 3, **EVERY_SWITCH})
SWITCHES = ({}, *ONE_SWITCH, {"num_classes": 3}, EVERY_SWITCH, *IN_PARTS)
needs_dali = pytest.mark.skipif(importlib.util.find_spec("nvidia.dali") is None, reason="needs NVIDIA DALI")


@needs_dali
@pytest.mark.parametrize("crop", ["short_side", "center_148", "squash"])
def test_dali_on_the_gpu_agrees_with_pillow_within_the_stated_tolerance(shards: Path, crop: str) -> None:
    mapped = MappedShards(shards, read_manifest(shards))
    batches = [list(range(64))]
    (on_gpu,) = decode_with_dali(mapped, batches, 64, crop, GPU, threads=2)  # type: ignore[arg-type]
    (on_cpu,) = decode_with_pillow(mapped, batches, 64, crop, torch.device("cpu"), threads=2)  # type: ignore[arg-type]
    difference = np.abs(on_gpu.cpu().numpy().astype(int) - on_cpu.numpy().astype(int))
    assert difference.max() <= 4
    assert difference.mean() <= 0.5


@needs_dali
def test_the_pixels_of_an_image_do_not_depend_on_the_batch_it_is_decoded_in(shards: Path) -> None:
    """Batches of the cache and of the stream differ; DALI could give part of each to the JPEG engine."""
    mapped = MappedShards(shards, read_manifest(shards))
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    in_order, shuffled = (
        torch.cat(list(decode_with_dali(mapped, [part.tolist() for part in ids.split(size)], 32, "short_side", GPU, 2)))
        for ids, size in ((torch.arange(256), 64), (order, 48))
    )
    assert torch.equal(in_order[order.to(GPU)], shuffled)


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "pillow"])
def test_cached_and_streamed_batches_are_the_same_on_the_gpu(
    shards: Path, decoder: Literal["dali", "pillow"], tmp_path: Path
) -> None:
    """Eleven batches of 48 reach twice over the end of an epoch of 256."""
    mapped = MappedShards(shards, read_manifest(shards))
    batches = []
    for loader in ("cache", "cache", "stream"):  # decoded, or from the file of an earlier start; from the file
        config = DataConfig(shards=str(tmp_path), image_size=32, flip=True, decoder=decoder, loader=loader)
        source = open_source(config, mapped, open_decoder(config, mapped, ALONE, cores=2), ALONE, lambda done: None)
        plan = BatchPlan.of(config, 0, len(mapped), 48, ALONE)
        batches.append(torch.stack(list(itertools.islice(batches_from(source, plan, 0, GPU), 11))))
    assert batches[0].device == GPU
    assert torch.equal(batches[0], batches[1])
    assert torch.equal(batches[0], batches[2])


@pytest.mark.parametrize("decoder", [pytest.param("dali", marks=needs_dali), "pillow"])
def test_a_streamed_batch_comes_while_the_gpu_is_still_busy_with_a_step(
    shards: Path, decoder: Literal["dali", "pillow"]
) -> None:
    mapped = MappedShards(shards, read_manifest(shards))
    config = DataConfig(image_size=32, decoder=decoder, loader="stream")
    decode = open_decoder(config, mapped, ALONE, cores=2)
    batches = decode([range(64), range(64, 128), range(64)])
    first = next(batches).clone()
    next(batches)
    torch.cuda._sleep(5_000_000_000)  # clock cycles: a step of two seconds or more
    step = torch.cuda.Event()
    step.record()
    again = next(batches)
    assert not step.query(), "the host waited for the step"
    assert torch.equal(first, again)


@pytest.mark.parametrize("switches", [{}, EVERY_SWITCH], ids=["defaults", "every switch"])
def test_a_step_between_two_rows_never_waits_for_the_gpu(switches: dict[str, Any]) -> None:
    precision = Precision(best_precision(GPU), GPU)
    config = with_switches(TrainConfig(data=DataConfig(flip=True), train=TrainSection(engine="ddp")), **switches)
    state = initial_state(config, ALONE, precision)
    pixels = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8, device=GPU)
    plan = BatchPlan(0, 16, 16, 0, 16, True)
    numbers = StepNumbers(config, plan, ALONE, torch.float32)
    inputs = StepInputs(step_images(CachedPixels(pixels), plan, 0), numbers, Rates([], 16, 0.0), 0)
    update = open_update(config, state, precision, inputs, plan, ALONE)
    inputs.prepare(0, 1)
    update()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            update()
    finally:
        torch.cuda.set_sync_debug_mode("default")


def test_a_grid_is_copied_off_the_gpu_and_measured_while_the_gpu_is_busy() -> None:
    pixels = torch.randint(0, 256, (64, 3, 64, 64), dtype=torch.uint8, device=GPU)
    expected = pixels.cpu()
    for _ in range(2):  # the first ask the system for memory that stays in place, and load their kernels
        held = copy_to_host(pixels), spread(pixels)
        held[0]()
    torch.cuda._sleep(2_000_000_000)  # clock cycles: a second or more
    busy = torch.cuda.Event()
    busy.record()
    copied, measured = copy_to_host(pixels), spread(pixels)
    assert not busy.query(), "the host waited for the GPU"
    assert torch.equal(copied(), expected)
    assert float(measured) == pytest.approx(float(spread(expected)), rel=1e-6)


def with_switches(
    config: TrainConfig,
    r1_gamma: float = 0.0,
    spectral_norm: bool = False,
    augment: bool = False,
    warmup: float = 0.0,
    accumulate: int = 1,
) -> TrainConfig:
    """The same configuration with what a step can do besides."""
    batch_norm: Literal["sync", "local"] = "local" if accumulate > 1 else "sync"
    return replace(
        config,
        train=replace(config.train, r1_gamma=r1_gamma, accumulate=accumulate, batch_norm=batch_norm),
        model=replace(config.model, spectral_norm=spectral_norm),
        data=replace(config.data, augment="diff" if augment else "none"),
        ema=replace(config.ema, warmup=warmup),
    )


def trained(engine: str, precision: PrecisionName, steps: int, num_classes: int = 0, **switches: Any) -> TrainState:
    """The state after some steps on one GPU."""
    section = TrainSection(precision=precision, engine=engine)  # type: ignore[arg-type]
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(base_channels=16), train=section)
    config = with_switches(config, **switches)
    arithmetic = Precision(precision, GPU)
    torch.backends.cudnn.deterministic = True
    state = initial_state(config, ALONE, arithmetic, num_classes)
    plan = BatchPlan(0, 16, 16, 0, 16, False)
    images, inputs = given_inputs(config, plan, ALONE, arithmetic.weights, shown=random_classes(16, num_classes))
    update = open_update(config, state, arithmetic, inputs, plan, ALONE)
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2)
        images.set(pixels.to(GPU))
        inputs.prepare(16 * number, 1)
        update()
    assert isinstance(update, CapturedUpdate) == (engine == "graph")
    if isinstance(update, CapturedUpdate):
        assert update.is_captured
    update.close()
    return state


@pytest.mark.parametrize(
    ("precision", "switches"),
    [
        *itertools.product(("fp64", "bf16"), SWITCHES),
        *itertools.product(("fp16",), ({}, EVERY_SWITCH)),  # every kernel is compiled anew for it
    ],
    ids=str,
)
def test_a_recorded_graph_takes_the_steps_that_single_operations_take(
    precision: PrecisionName, switches: dict[str, Any]
) -> None:
    tolerance = 1e-8 if precision == "fp64" else 0.0
    steps = STEPS_BEFORE_CAPTURE + 9
    eager, captured = (trained(engine, precision, steps, **switches) for engine in ("ddp", "graph"))
    assert_same_state(eager, captured, tolerance)
    vectors = singular_vectors(captured.discriminator)
    assert len(vectors) == (4 if "spectral_norm" in switches else 0)
    for name, left in singular_vectors(eager.discriminator).items():
        torch.testing.assert_close(vectors[name], left, rtol=tolerance, atol=tolerance)


def assert_same_state(one: TrainState, other: TrainState, tolerance: float) -> None:
    for network in ("generator", "discriminator", "average"):
        left, right = getattr(one, network).state_dict(), getattr(other, network).state_dict()
        for key, value in left.items():
            torch.testing.assert_close(value, right[key], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(one.window.sums, other.window.sums, rtol=1e-9, atol=1e-9)


def test_preflight_times_a_step_that_is_replayed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[torch.cuda.CUDAGraph] = []
    replay = torch.cuda.CUDAGraph.replay

    def count(graph: torch.cuda.CUDAGraph) -> None:
        replayed.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", count)
    data = DataConfig(shards=str(shards), image_size=32, batch_size_per_rank=16)
    config = TrainConfig(data=data, model=ModelConfig(base_channels=16))
    mapped = MappedShards(shards, read_manifest(shards))
    plan = settle(config, mapped, None, ALONE)
    assert probes.check_memory(config, plan, ALONE).status == "ok"
    in_check = len(replayed)
    check, speed = probes.measure_training(config, plan, ALONE)
    assert in_check == 1, "the last step of the warm-up should be a replayed one"
    assert len(replayed) >= in_check + 3 and speed > 0  # the warm-up's, the one that is timed to know how many, those
    assert "GiB of GPU memory" in check.found
