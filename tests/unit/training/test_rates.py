"""What follows from the position: learning rates that fall at the end of a run, an average that warms up."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import EmaConfig, OptimConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World
from dcgan_dist.training.by_position import Rates, StepLatents, share_of_rate
from dcgan_dist.training.resume import check_identity
from tests.running import (
    assert_same_tensors,
    checkpoints,
    load_checkpoint,
    run_train,
    started,
    train_command,
    wait_until,
)
from tests.saved_checkpoints import saved_at


@pytest.mark.parametrize(
    ("images_seen", "decay_last", "share"),
    [(0, 0.0, 1), (1000, 0.0, 1), (0, 0.5, 1), (500, 0.5, 1), (750, 0.5, 0.5), (1000, 0.5, 0), (250, 1.0, 0.75)],
)
def test_the_rate_stays_and_then_falls_evenly_to_zero(images_seen: int, decay_last: float, share: float) -> None:
    assert share_of_rate(images_seen, 1000, decay_last) == share


@pytest.mark.parametrize("rate", [0.1, torch.tensor(0.1)], ids=["number", "on the device"])
def test_it_is_set_where_the_optimizer_reads_it(rate: float | torch.Tensor) -> None:
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)], lr=rate, fused=True)
    rates = Rates([optimizer], 1000, 0.5)
    for images_seen, expected in ((0, 0.1), (750, 0.05), (500, 0.1), (1000, 0.0)):
        rates.set(images_seen)
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(expected)
    if isinstance(rate, torch.Tensor):
        assert optimizer.param_groups[0]["lr"] is rate


@pytest.mark.parametrize(("images_seen", "half_life"), [(0, 0), (1000, 50), (199_999, 9999.95), (10**6, 10_000)])
def test_the_half_life_of_the_average_grows_with_the_images_seen_up_to_its_full_length(
    images_seen: int, half_life: float
) -> None:
    plan, world = BatchPlan(0, 8, 8, 0, 8, flip=False), World(0, 1, 0, 1, torch.device("cpu"))
    found = StepLatents(plan, 4, world, torch.float32, ema=EmaConfig(10_000, 0.05)).at(images_seen).half_life_images
    assert found is not None
    assert float(found) == pytest.approx(half_life)
    assert StepLatents(plan, 4, world, torch.float32, ema=EmaConfig(10_000)).at(images_seen).half_life_images is None


def test_a_run_whose_rates_depend_on_its_length_may_not_change_it() -> None:
    before = TrainConfig(optim=OptimConfig(decay_last=0.5), train=TrainSection(total_images=1000))
    longer = dataclasses.replace(before, train=TrainSection(total_images=2000))
    with pytest.raises(UserError, match=r"train\.total_images is 2000 and was 1000"):
        check_identity(longer, "abc", saved_at(500, config=before.as_dict()))
    check_identity(before, "abc", saved_at(500, config=before.as_dict()))


def test_a_killed_run_ends_with_the_bits_of_an_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    settings = (
        *(
            "--data.shards",
            shards,
            "--data.image_size",
            32,
            "--data.batch_size_per_rank",
            8,
            "--model.base_channels",
            4,
        ),
        *(
            "--train.precision",
            "fp32",
            "--optim.decay_last",
            0.7,
            "--train.total_images",
            2400,
            "--track.report",
            "false",
        ),
        *("--data.augment", "diff", "--data.flip", "true", "--ema.warmup", 0.3, "--ema.half_life_images", 500),
        *("--checkpoint.every_images", 400, "--checkpoint.keep_last", 9, "--track.tensorboard", "false"),
    )
    assert run_train(1, *settings, "--run.dir", tmp_path / "straight").returncode == 0
    killed = tmp_path / "killed"
    with started(train_command(1, *settings, "--run.dir", killed)) as process:
        wait_until(lambda: len(checkpoints(killed)) > 2, process)
        process.kill()
    assert run_train(1, *settings, "--run.dir", killed).returncode == 0
    ends = [load_checkpoint(checkpoints(run)[-1]) for run in (tmp_path / "straight", killed)]
    for network in ("generator", "discriminator", "ema"):
        assert_same_tensors(ends[0][network], ends[1][network])
