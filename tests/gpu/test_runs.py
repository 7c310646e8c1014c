"""What a run on a GPU leaves behind: pictures, figures, checkpoints, and what is made of them, also on a CPU."""

from __future__ import annotations

import json
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from benchmarks.gpu_stages.learns import cells
from dcgan_dist import evaluate, export, generate
from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from dcgan_dist.gan.precision import Precision
from dcgan_dist.run.trained import load_trained
from dcgan_dist.training.samples import FixedLatentSampler, calibrate_batch_norm, spread
from dcgan_dist.training.state import initial_state
from tests.faults import wrong_batch_norm
from tests.gpu.device import ALONE, CPU, DEVICE, ON_GPU, QUIET, SMALL, VISIBLE, command, on_gpu_or_rehearsed, train
from tests.running import (
    assert_same_tensors,
    checkpoints,
    load_checkpoint,
    metric_rows,
    read_status,
    started,
    train_command,
    wait_until,
)

pytestmark = on_gpu_or_rehearsed

STEPS = 400 if ON_GPU else 40
LEARNING = (
    *("--data.image_size", "32", "--data.global_batch_size", "64", "--model.base_channels", "32" if ON_GPU else "8"),
    *("--optim.generator_lr", "4e-4", "--optim.discriminator_lr", "4e-4", "--ema.half_life_images", "4000"),
    *("--track.every_images", "640", "--train.total_images", 64 * STEPS),
    *QUIET,
)


@pytest.fixture(scope="module")
def run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short training with the default settings of how a step runs."""
    return train(shards, tmp_path_factory.mktemp("runs") / "learned", *LEARNING)


def test_a_short_training_learns(run: Path) -> None:
    rows = metric_rows(run)
    gradients = [row["gradient/generator"] for row in rows if "gradient/generator" in row]
    assert gradients and max(gradients) < 1000
    assert all(math.isfinite(value) for row in rows for value in row.values())
    # After 400 steps a CPU shows 0.29 and 6.7; a generator that learns nothing 1.4 and 0.8.
    losses = [statistics.fmean(row[f"loss/{name}"] for row in rows[-5:]) for name in ("discriminator", "generator")]
    assert losses[0] < 1.2
    assert losses[1] > 1.2
    assert read_status(run)["status"] == "done"
    assert not {"exploding", "vanishing", "guessing"} & set(read_status(run)["warnings"])


def test_the_grid_differs_between_latents(run: Path) -> None:
    newest = max((run / "samples").glob("[0-9]*.png"))
    real = float(spread(cells(run / "samples" / "real.png", 32)))
    assert float(spread(cells(newest, 32))) > (0.1 if ON_GPU else 0.02) * real
    if ON_GPU:
        assert float(spread(cells(run / "samples" / "ema" / newest.name, 32))) > 0.1 * real


def test_status_tells_where_the_time_went(run: Path) -> None:
    seconds = read_status(run)["seconds"]
    assert {"start", "decode", "train", "samples", "checkpoints", "report"} <= set(seconds)
    assert seconds["samples"] + seconds["checkpoints"] < seconds["train"] + seconds["start"]


def test_the_same_weights_draw_the_same_grid_on_a_cpu(run: Path) -> None:
    grids = []
    for device in (DEVICE, CPU):
        sampler = FixedLatentSampler(0, 16, 100, 32, World(0, 1, 0, 1, device))
        grids.append(sampler.draw(load_trained(run, device).generator).cpu().int())
    assert (grids[0] - grids[1]).abs().max() <= 3  # convolutions in TF32


def test_a_checkpoint_loads_into_networks_with_ordinary_batch_norm(run: Path) -> None:
    saved = load_checkpoint(checkpoints(run)[-1])
    width = saved["config"]["model"]["base_channels"]
    networks = {"generator": Generator(32, 100, width), "discriminator": Discriminator(32, width, True)}
    for name, network in networks.items():
        network.load_state_dict(saved[name])
        assert all(type(layer) is nn.BatchNorm2d for layer in network.modules() if isinstance(layer, nn.BatchNorm2d))
        assert all(value.isfinite().all() and value.device == CPU for value in saved[name].values())


def test_the_averages_statistics_are_measured_as_on_a_cpu() -> None:
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(latent_size=16, base_channels=4))
    measured = []
    for device in (DEVICE, CPU):
        world = World(0, 1, 0, 1, device)
        state = initial_state(config, world, Precision("fp64", device))
        assert state.average is not None
        calibrate_batch_norm(state.average, 0, 16, world)
        measured.append({name: value.cpu() for name, value in state.average.named_buffers()})
    for name, value in measured[0].items():
        torch.testing.assert_close(value, measured[1][name], rtol=1e-9, atol=1e-9, msg=name)


def test_the_watch_warns_of_a_batch_norm_that_does_not_subtract_the_mean(
    shards: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("dcgan_dist.distributed.sync_batch_norm.SyncBatchNorm2d.forward", wrong_batch_norm._forward)
    settings = (*LEARNING, "--train.total_images", 64 * 60)
    broken = train(shards, tmp_path / "broken", *settings)
    assert set(read_status(broken)["warnings"]) & {"exploding", "guessing"}
    kinds = [json.loads(line)["kind"] for line in (broken / "events.jsonl").read_text().splitlines()]
    kinds = [kind for kind in kinds if kind != "pixels"]
    assert "warning" in kinds


def test_stopped_and_killed_runs_end_with_the_bits_of_an_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    total, every = ("--train.total_images", 2560), ("--checkpoint.every_images", 320)
    straight = train(shards, tmp_path / "straight", *SMALL, *every, *total)
    train(shards, tmp_path / "stopped", *SMALL, *every, "--train.total_images", 1280)
    train(shards, tmp_path / "stopped", *SMALL, *every, *total)
    killed = tmp_path / "killed"
    words = ("--data.shards", shards, "--run.dir", killed, *SMALL, *every, "--train.total_images", 2_000_000)
    with started(train_command(1, *words), VISIBLE) as process:
        wait_until(lambda: len(checkpoints(killed)) > 0, process)
        process.kill()
    for later in checkpoints(killed)[1:]:  # it may have run past the end of the others
        later.unlink()
    train(shards, killed, *SMALL, *every, *total)
    expected = load_checkpoint(straight / "checkpoints" / "000002560.pt")
    for folder in (tmp_path / "stopped", killed):
        found = load_checkpoint(folder / "checkpoints" / "000002560.pt")
        for part in ("generator", "discriminator", "ema", "optimizers"):
            assert_same_tensors(expected[part], found[part], f"{folder.name}.{part}")


@pytest.fixture(scope="module")
def made_on(run: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Checkpoints by the device that they were trained on."""
    if not ON_GPU:
        return {"gpu": run, "cpu": run}
    folder = tmp_path_factory.mktemp("runs") / "cpu"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("dcgan_dist.distributed.world._pick_device", lambda rank: CPU)
        return {"gpu": run, "cpu": train(shards, folder, *SMALL, "--train.total_images", 320)}


@pytest.mark.parametrize("trained_on", ["gpu", "cpu"])
def test_generate_draws_the_same_images_on_either_device(
    made_on: dict[str, Path], tmp_path: Path, trained_on: str
) -> None:
    drawn = []
    for device in (DEVICE, CPU):
        out = tmp_path / f"{device.type}.png"
        command(generate.main, "--checkpoint", made_on[trained_on], "--out", out, "--num-images", 16, device=device)
        drawn.append(np.asarray(Image.open(out)).astype(int))
    assert np.abs(drawn[0] - drawn[1]).max() <= 3  # convolutions in TF32


def test_evaluate_scores_alike_on_either_device(made_on: dict[str, Path], shards: Path, tmp_path: Path) -> None:
    scores = []
    for device in (DEVICE, CPU):
        out = tmp_path / f"{device.type}.jsonl"
        words = ("--checkpoint", made_on["gpu"], "--shards", shards, "--metrics", "swd", "--num-images", 128)
        command(evaluate.main, *words, "--decoder", "pillow", "--out", out, device=device)
        scores.append(json.loads(out.read_text().splitlines()[-1])["value"])
    assert scores[0] == pytest.approx(scores[1], rel=0.02)


@pytest.mark.parametrize("trained_on", ["gpu", "cpu"])
def test_a_checkpoint_is_exported_whatever_it_was_trained_on(
    made_on: dict[str, Path], tmp_path: Path, trained_on: str
) -> None:
    pytest.importorskip("safetensors")
    words = ("--checkpoint", made_on[trained_on], "--out", tmp_path / "exported", "--format", "safetensors")
    command(export.main, *words)
    assert (tmp_path / "exported" / "generator.safetensors").exists()


def test_processes_keep_nothing_of_a_run_that_has_ended(run: Path) -> None:
    if ON_GPU:
        torch.cuda.synchronize()
        assert torch.cuda.memory_allocated() < 2**30
    assert ALONE.size == 1
