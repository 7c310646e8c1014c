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
from dcgan_dist.training.by_position import Rates
from dcgan_dist.training.resume import check_identity
from tests.given import given_inputs
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
    ("decay_last", "shares"), [(0.0, {0: 1, 1000: 1}), (0.5, {0: 1, 750: 0.5, 500: 1, 1000: 0}), (1.0, {250: 0.75})]
)
def test_the_rate_stays_and_then_falls_evenly_to_zero(decay_last: float, shares: dict[int, float]) -> None:
    rate = torch.tensor(0.1)
    optimizer = torch.optim.Adam([torch.zeros(2, requires_grad=True)], lr=rate, fused=True)
    rates = Rates([optimizer], 1000, decay_last)
    for images_seen, share in shares.items():
        rates.set(torch.tensor(images_seen))
        assert float(optimizer.param_groups[0]["lr"]) == pytest.approx(0.1 * share)
    assert optimizer.param_groups[0]["lr"] is rate


@pytest.mark.parametrize(("images_seen", "half_life"), [(0, 0), (1000, 50), (199_999, 9999.95), (10**6, 10_000)])
def test_the_half_life_of_the_average_grows_with_the_images_seen_up_to_its_full_length(
    images_seen: int, half_life: float
) -> None:
    plan, world = BatchPlan(0, 8, 8, 0, 8, flip=False), World(0, 1, 0, 1, torch.device("cpu"))
    images, inputs = given_inputs(TrainConfig(ema=EmaConfig(10_000, 0.05)), plan, world, torch.float32, images_seen)
    images.set(torch.zeros(8, 3, 64, 64, dtype=torch.uint8))
    assert float(inputs.take()[1]) == pytest.approx(half_life)


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
