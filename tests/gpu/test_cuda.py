"""What only a GPU can show. Two ranks share one GPU over gloo, so one GPU is enough."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torch import nn

from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.loader import BatchPlan, endless_batches, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.sync_batch_norm import synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.engine import STEPS_BEFORE_CAPTURE, CapturedUpdate, open_update
from dcgan_dist.gan.precision import Precision, PrecisionName, best_precision
from dcgan_dist.state import TrainState, initial_state
from launch import probes
from tests.running import load_checkpoint, metric_rows, read_status, run_train

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")

GPU = torch.device("cuda", 0)
ALONE = World(0, 1, 0, 1, GPU)
VISIBLE = {"CUDA_VISIBLE_DEVICES": "0"}
SMALL_RUN = (
    *("--data.image_size", "32", "--model.base_channels", "8", "--data.global_batch_size", "32"),
    *("--track.every_images", "32", "--track.tensorboard", "false", "--track.wandb", "off"),
)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sync_batch_norm_equals_batch_norm_on_the_gpu(dtype: torch.dtype, memory_format: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.BatchNorm2d(16)).to(GPU)
    ours = nn.Sequential(nn.BatchNorm2d(16)).to(GPU)
    synchronise_batch_norm(ours, ALONE)
    images = torch.randn(8, 16, 12, 12, device=GPU).to(dtype).contiguous(memory_format=memory_format)
    grad = torch.randn_like(images)
    results = []
    for network in (plain, ours):
        leaf = images.clone().requires_grad_()
        network(leaf).backward(grad)
        results.append((leaf.grad, network[0].weight.grad, network[0].running_var))
    tolerance = {torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-3}[dtype]
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("crop", ["short_side", "center_148", "squash"])
def test_dali_on_the_gpu_agrees_with_pillow_within_the_stated_tolerance(shards: Path, crop: str) -> None:
    mapped = MappedShards(shards, read_manifest(shards))
    batches = [list(range(64))]
    (on_gpu,) = decode_with_dali(mapped, batches, 64, crop, GPU, threads=2)  # type: ignore[arg-type]
    (on_cpu,) = decode_with_pillow(mapped, batches, 64, crop, torch.device("cpu"), threads=2)  # type: ignore[arg-type]
    difference = np.abs(on_gpu.cpu().numpy().astype(int) - on_cpu.numpy().astype(int))
    assert difference.max() <= 4
    assert difference.mean() <= 0.5


def test_the_pixels_of_an_image_do_not_depend_on_the_batch_it_is_decoded_in(shards: Path) -> None:
    """DALI may split a batch between a JPEG engine and CUDA kernels; the cache and the stream make up other batches."""
    mapped = MappedShards(shards, read_manifest(shards))
    order = torch.randperm(256, generator=torch.Generator().manual_seed(0))
    in_order, shuffled = (
        torch.cat(list(decode_with_dali(mapped, [part.tolist() for part in ids.split(size)], 32, "short_side", GPU, 2)))
        for ids, size in ((torch.arange(256), 64), (order, 48))
    )
    assert torch.equal(in_order[order.to(GPU)], shuffled)


@pytest.mark.parametrize("decoder", ["dali", "pillow"])
def test_cached_and_streamed_batches_are_the_same_on_the_gpu(shards: Path, decoder: Literal["dali", "pillow"]) -> None:
    """Eleven batches of 48 reach twice over the end of an epoch of 256."""
    mapped = MappedShards(shards, read_manifest(shards))
    batches = []
    for loader in ("cache", "stream"):
        config = DataConfig(image_size=32, flip=True, decoder=decoder, loader=loader)
        source = open_source(config, mapped, open_decoder(config, mapped, ALONE, cores=2), ALONE, lambda done: None)
        plan = BatchPlan.of(config, 0, len(mapped), 48, ALONE)
        batches.append(torch.stack(list(itertools.islice(endless_batches(source, plan, 0), 11))))
    assert batches[0].device == GPU
    assert torch.equal(*batches)


def test_a_streamed_batch_comes_while_the_gpu_is_still_busy_with_a_step(shards: Path) -> None:
    mapped = MappedShards(shards, read_manifest(shards))
    config = DataConfig(image_size=32, decoder="dali", loader="stream")
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


def test_a_step_between_two_rows_never_waits_for_the_gpu() -> None:
    precision = Precision(best_precision(GPU), GPU)
    config = TrainConfig(train=TrainSection(engine="ddp"))
    state = initial_state(config, ALONE, precision)
    update = open_update(config, state, precision, BatchPlan(0, 16, 16, 0, 16, False), ALONE)
    pixels = torch.randint(0, 256, (16, 64, 64, 3), dtype=torch.uint8, device=GPU).permute(0, 3, 1, 2)
    latents = torch.randn(16, 100, device=GPU)
    update(pixels, latents, latents)
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(3):
            update(pixels, latents, latents)
    finally:
        torch.cuda.set_sync_debug_mode("default")


def trained(engine: str, discriminator_pass: str, precision: PrecisionName, steps: int) -> TrainState:
    """The state after some steps on one GPU."""
    section = TrainSection(precision=precision, engine=engine, discriminator_pass=discriminator_pass)  # type: ignore
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(base_channels=16), train=section)
    arithmetic = Precision(precision, GPU)
    torch.backends.cudnn.deterministic = True
    state = initial_state(config, ALONE, arithmetic)
    update = open_update(config, state, arithmetic, BatchPlan(0, 16, 16, 0, 16, False), ALONE)
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (16, 32, 32, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2).to(GPU)
        latents = torch.randn(2, 16, 100, generator=random).to(GPU, arithmetic.weights)
        update(pixels, latents[0], latents[1])
    assert isinstance(update, CapturedUpdate) == (engine == "graph")
    if isinstance(update, CapturedUpdate):
        assert update.is_captured
    update.close()
    return state


@pytest.mark.parametrize("discriminator_pass", ["joint", "separate"])
@pytest.mark.parametrize(("precision", "tolerance"), [("fp64", 1e-9), ("bf16", 0.0), ("fp16", 0.0)])
def test_a_recorded_graph_takes_the_steps_that_single_operations_take(
    precision: PrecisionName, tolerance: float, discriminator_pass: str
) -> None:
    eager, captured = (
        trained(engine, discriminator_pass, precision, STEPS_BEFORE_CAPTURE + 9) for engine in ("ddp", "graph")
    )
    for network in ("generator", "discriminator", "average"):
        one, other = getattr(eager, network).state_dict(), getattr(captured, network).state_dict()
        for key, value in one.items():
            torch.testing.assert_close(value, other[key], rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(eager.window.sums, captured.window.sums, rtol=1e-9, atol=1e-9)


def test_preflight_times_a_step_that_is_replayed(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    replayed: list[torch.cuda.CUDAGraph] = []
    replay = torch.cuda.CUDAGraph.replay

    def count(graph: torch.cuda.CUDAGraph) -> None:
        replayed.append(graph)
        replay(graph)

    monkeypatch.setattr(torch.cuda.CUDAGraph, "replay", count)
    data = DataConfig(shards=str(shards), image_size=32, batch_size_per_rank=16)
    config = TrainConfig(data=data, model=ModelConfig(base_channels=16))
    manifest = read_manifest(shards)
    assert probes.check_memory(config, manifest, ALONE).status == "ok"
    in_check = len(replayed)
    check, _, speed = probes.measure_training(config, manifest, ALONE)
    assert in_check == 1, "the last step of the warm-up should be a replayed one"
    assert len(replayed) >= in_check + 3 and speed > 0  # the warm-up's, the one that is timed to know how many, those
    assert "GiB of GPU memory" in check.found


def test_a_resumed_run_on_the_gpu_ends_with_the_bits_of_an_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    weights = []
    for name, stops in (("straight", (2560,)), ("resumed", (1280, 2560))):
        for total in stops:
            result = run_train(
                1, "--data.shards", shards, "--run.dir", tmp_path / name, *SMALL_RUN, "--train.total_images", total,
                env=VISIBLE,
            )  # fmt: skip
            assert result.returncode == 0, result.stderr
        weights.append(load_checkpoint(tmp_path / name / "checkpoints" / "000002560.pt"))
    for network in ("generator", "discriminator", "ema"):
        for key, value in weights[0][network].items():
            assert torch.equal(value, weights[1][network][key]), f"{network}.{key}"


def test_two_ranks_on_one_gpu_train_the_same_networks_as_one(shards: Path, tmp_path: Path) -> None:
    rows = []
    for ranks in (1, 2):
        run = tmp_path / str(ranks)
        result = run_train(
            ranks, "--data.shards", shards, "--run.dir", run, *SMALL_RUN, "--train.precision", "fp64",
            "--train.total_images", 640, env=VISIBLE,
        )  # fmt: skip
        assert result.returncode == 0, result.stderr
        rows.append(metric_rows(run))
    for one, other in zip(*rows, strict=True):
        for name in ("loss/discriminator", "loss/generator"):
            assert one[name] == pytest.approx(other[name], rel=1e-8)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_two_ranks_train_in_half_precision_on_one_gpu(shards: Path, tmp_path: Path, precision: str) -> None:
    result = run_train(
        2, "--data.shards", shards, "--run.dir", tmp_path, *SMALL_RUN, "--train.precision", precision,
        "--train.total_images", 1280, env=VISIBLE,
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert read_status(tmp_path)["status"] == "done"
    saved = load_checkpoint(tmp_path / "checkpoints" / "000001280.pt")
    assert all(tensor.isfinite().all() for tensor in saved["generator"].values())
