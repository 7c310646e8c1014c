"""Which checkpoint a run may go on from, and what is said where it may not."""

from __future__ import annotations

import dataclasses
import logging
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.base.errors import UserError
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.config import DataConfig, RunConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.saved import Saved
from dcgan_dist.training.resume import FIXED_SETTINGS, SHAPES, check_identity, choose_global_batch, find_checkpoint
from tests.saved_checkpoints import saved_at

CONFIG = TrainConfig()
CPU = torch.device("cpu")

# For settings that cannot be 7.
ANOTHER_VALUE = {
    "data.image_size": "128",
    "data.crop": "squash",
    "data.flip": "true",
    "data.augment": "diff",
    "model.discriminator_input_norm": "false",
    "optim.beta1": "0.25",
    "optim.beta2": "0.25",
    "optim.decay_last": "0.25",
    "train.precision": "fp32",
    "train.batch_norm": "local",
    "model.spectral_norm": "true",
    "train.loss": "hinge",
    "train.reuse_fakes": "false",
}


def world(ranks: int) -> World:
    return World(0, ranks, 0, ranks, CPU)


def saved_by(config: TrainConfig, global_batch: int = 128) -> Saved:
    return saved_at(500, config=config.as_dict(), global_batch=global_batch)


def with_data(**changes: Any) -> TrainConfig:
    return dataclasses.replace(CONFIG, data=DataConfig(**changes))


# --- is it the same run -----------------------------------------------------------------------------------------------


def test_the_same_settings_and_images_may_go_on() -> None:
    check_identity(CONFIG, "abc", saved_by(CONFIG))


@pytest.mark.parametrize("key", FIXED_SETTINGS)
def test_a_setting_that_makes_the_run_what_it_is_may_not_change(key: str) -> None:
    section, field = key.split(".")
    before = CONFIG.as_dict()[section][field]
    beside = ["--train.batch_norm", "local"] if key == "train.accumulate" else []
    changed = parse_arguments([f"--{key}", ANOTHER_VALUE.get(key, "7"), *beside])
    with pytest.raises(UserError) as caught:
        check_identity(changed, "abc", saved_by(CONFIG))
    assert f"{key} is {changed.as_dict()[section][field]} and was {before}" in str(caught.value)
    advice = "set it back, choose another --run.dir" + (
        ", or say --run.accept_changes true" if key not in SHAPES else ""
    )
    assert str(caught.value).endswith(advice)


@pytest.mark.parametrize("key", SHAPES)
def test_a_setting_that_gives_weights_their_shapes_may_not_even_change_if_accepted(key: str) -> None:
    accepted = parse_arguments([f"--{key}", ANOTHER_VALUE.get(key, "7"), "--run.accept_changes", "true"])
    with pytest.raises(UserError, match=key):
        check_identity(accepted, "abc", saved_by(CONFIG))


def test_a_setting_that_is_younger_than_the_checkpoint_counts_as_its_default() -> None:
    saved = saved_by(CONFIG)
    del saved.config["ema"]["half_life_images"]
    check_identity(CONFIG, "abc", saved)
    with pytest.raises(UserError, match=r"ema\.half_life_images is 7 and was 10000"):
        check_identity(parse_arguments(["--ema.half_life_images", "7"]), "abc", saved)


def test_a_checkpoint_from_before_fakes_could_be_reused_was_trained_without() -> None:
    saved = saved_by(CONFIG)
    del saved.config["train"]["reuse_fakes"]
    with pytest.raises(UserError, match=r"train\.reuse_fakes is True and was False"):
        check_identity(CONFIG, "abc", saved)
    check_identity(parse_arguments(["--train.reuse_fakes", "false"]), "abc", saved)


def test_other_images_may_not_take_the_place_of_the_first() -> None:
    with pytest.raises(UserError, match=r"the images in .* are not those of before"):
        check_identity(CONFIG, "other", saved_by(CONFIG))


def test_all_that_differs_is_told_together() -> None:
    changed = dataclasses.replace(CONFIG, run=RunConfig(seed=1), data=DataConfig(crop="squash"))
    with pytest.raises(
        UserError, match=r"run\.seed is 1 and was 0; data\.crop is squash and was short_side; the images"
    ):
        check_identity(changed, "other", saved_by(CONFIG))


def test_changes_can_be_accepted_and_are_still_told(caplog: pytest.LogCaptureFixture) -> None:
    changed = dataclasses.replace(CONFIG, run=RunConfig(seed=1, accept_changes=True))
    with caplog.at_level(logging.WARNING):
        check_identity(changed, "abc", saved_by(CONFIG))
    assert "going on although run.seed is 1 and was 0" in caplog.text


@pytest.mark.parametrize("arguments", ["--train.epochs 9", "--checkpoint.every_images 5", "--run.name other"])
def test_settings_that_change_no_weight_may_change(arguments: str) -> None:
    check_identity(parse_arguments(arguments.split()), "abc", saved_by(CONFIG))


# --- how many images a step takes -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("ranks", "expected"), [(1, 128), (2, 256), (8, 1024)])
def test_the_global_batch_is_every_ranks_batch(ranks: int, expected: int) -> None:
    assert choose_global_batch(CONFIG.data, world(ranks), None, 5000) == expected


@pytest.mark.parametrize("ranks", [1, 2, 3, 8])
def test_a_global_batch_that_is_set_wins_at_any_number_of_ranks(ranks: int) -> None:
    assert choose_global_batch(with_data(global_batch_size=100).data, world(ranks), None, 5000) == 100


@pytest.mark.parametrize(
    ("config", "ranks", "expected"),
    [
        (with_data(global_batch_size=3), 4, "data.global_batch_size = 3: 4 ranks need at least one image each"),
        (with_data(batch_size_per_rank=3000), 2, "data.batch_size_per_rank = 3000: a step would take 6000 images"),
        (with_data(global_batch_size=5001), 1, "has only 5000; make it smaller"),
    ],
)
def test_a_batch_that_cannot_be_is_refused(config: TrainConfig, ranks: int, expected: str) -> None:
    with pytest.raises(UserError, match=re.escape(expected)):
        choose_global_batch(config.data, world(ranks), None, 5000)


def test_a_batch_of_fewer_images_than_parts_is_refused() -> None:
    assert choose_global_batch(with_data(global_batch_size=9).data, world(2), None, 5000, accumulate=4) == 9
    with pytest.raises(UserError, match=r"train\.accumulate = 5: a rank has 4 images a step, and each part needs"):
        choose_global_batch(with_data(global_batch_size=9).data, world(2), None, 5000, accumulate=5)


def test_on_other_ranks_a_resumed_run_is_told_how_to_keep_its_global_batch() -> None:
    saved = saved_by(CONFIG, global_batch=512)
    assert choose_global_batch(CONFIG.data, world(4), saved, 5000) == 512
    with pytest.raises(UserError, match=r"set --data\.global_batch_size 512 to go on with 2 .* 4 rank\(s\) would do"):
        choose_global_batch(CONFIG.data, world(2), saved, 5000)
    assert choose_global_batch(with_data(global_batch_size=512).data, world(3), saved, 5000) == 512


# --- from which checkpoint --------------------------------------------------------------------------------------------


def resuming(how: object) -> TrainConfig:
    return dataclasses.replace(CONFIG, run=RunConfig(resume=str(how)))


@pytest.fixture
def used(tmp_path: Path) -> Checkpointer:
    """The checkpoints of a folder in which a run was at 500 images."""
    checkpointer = Checkpointer(tmp_path / "checkpoints", 3, 0, world(1))
    assert checkpointer.save(saved_by(CONFIG))
    return checkpointer


def test_auto_takes_the_newest_or_none(used: Checkpointer, tmp_path: Path) -> None:
    found = find_checkpoint(resuming("auto").run, used)
    assert found
    assert found.images_seen == 500
    assert find_checkpoint(resuming("auto").run, Checkpointer(tmp_path / "new", 3, 0, world(1))) is None


def test_never_refuses_a_used_folder_and_takes_a_new_one(used: Checkpointer, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"run\.resume = never"):
        find_checkpoint(resuming("never").run, used)
    assert find_checkpoint(resuming("never").run, Checkpointer(tmp_path / "new", 3, 0, world(1))) is None


def test_a_named_checkpoint_starts_a_new_folder(used: Checkpointer, tmp_path: Path) -> None:
    elsewhere = Checkpointer(tmp_path / "new", 3, 0, world(1))
    found = find_checkpoint(resuming(used.path(500)).run, elsewhere)
    assert found
    assert found.images_seen == 500
    assert found.tracker_ids == {}  # it is another run to everyone who is told of it
    assert (found.watch and (found.watch["rollbacks"], found.watch["last_row"])) == (0, 500)
