"""One round of the faults that are affordable in a test run; `make faults ROUNDS=20` tries all of them many times."""

from __future__ import annotations

import signal
import threading
from pathlib import Path

import pytest
import torch

from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from tests.faults.lab import Lab, standalone, static
from tests.faults.scenarios import (
    change_manifest,
    change_shard,
    damage_all_checkpoints,
    damage_checkpoint,
    die_while_saving,
    diverge,
    flip_bit,
    kill_launcher,
    kill_rank,
    limit_file_size,
    move_run,
    raise_in_rank,
    stick_rank,
    stop_by_signal,
)
from tests.saved_checkpoints import saved_at

pytestmark = pytest.mark.timeout(300)  # several launches of two ranks on two cores that others use too


# --- processes --------------------------------------------------------------------------------------------------------


def test_after_kill_9_of_a_rank_torchrun_brings_the_run_to_the_same_end(lab: Lab) -> None:
    assert kill_rank(lab, rank=0, launcher=static).identical


def test_after_kill_9_of_torchrun_no_rank_lives_on_and_the_same_command_ends_the_run(lab: Lab) -> None:
    assert kill_launcher(lab, launcher=standalone).identical


def test_a_stuck_rank_shows_where_and_the_job_starts_again(lab: Lab) -> None:
    assert stick_rank(lab, rank=1).identical


def test_a_rank_that_raises_is_named_and_takes_the_job_with_it(lab: Lab) -> None:
    assert raise_in_rank(lab, rank=1).identical


def test_nan_on_one_rank_stops_all_before_a_checkpoint_takes_it_in(lab: Lab) -> None:
    assert diverge(lab, fault="nan").identical


def test_a_signal_to_torchrun_costs_no_image(lab: Lab) -> None:
    outcome = stop_by_signal(lab, signal.SIGUSR2, target="torchrun")
    assert outcome.identical
    assert outcome.redone == 0


# --- the disk, on one rank --------------------------------------------------------------------------------------------


def test_a_checkpoint_with_one_wrong_bit_is_passed_over(lab: Lab) -> None:
    assert damage_checkpoint(lab, flip_bit, ranks=1).identical


def test_a_deleted_checkpoint_is_missed_and_said_to_be(lab: Lab) -> None:
    assert damage_checkpoint(lab, Path.unlink, ranks=1).identical


def test_without_one_whole_checkpoint_a_run_is_not_started_anew(lab: Lab) -> None:
    damage_all_checkpoints(lab)


def test_kill_9_between_the_write_and_the_rename_of_a_checkpoint_leaves_the_one_before(lab: Lab) -> None:
    assert die_while_saving(lab, "kill-before-rename", ranks=1).identical


def test_a_full_disk_stops_no_training(lab: Lab) -> None:
    assert limit_file_size(lab, ranks=1).identical


def test_a_run_folder_may_be_moved(lab: Lab) -> None:
    assert move_run(lab, ranks=1).identical


def test_a_damaged_checkpoint_ahead_of_the_run_takes_no_good_ones_place(tmp_path: Path) -> None:
    checkpointer = Checkpointer(tmp_path, 1, 0, World(0, 1, 0, 1, torch.device("cpu")))
    (tmp_path / "000000500.pt").write_bytes(b"damaged")
    for images_seen in (300, 400):
        assert checkpointer.save(saved_at(images_seen))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["000000400.pt", "000000500.pt"]


def test_a_disk_that_hangs_costs_checkpoints_and_not_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    works_again = threading.Event()
    monkeypatch.setattr("os.fsync", lambda handle: works_again.wait(60))
    monkeypatch.setattr("dcgan_dist.run.checkpoint.PATIENCE_SECONDS", 0.1)
    checkpointer = Checkpointer(tmp_path, 3, 0, World(0, 1, 0, 1, torch.device("cpu")))
    for images_seen in (100, 200):
        checkpointer.save_in_background(saved_at(images_seen))
    assert "no checkpoint at 200 images, the disk is still busy" in caplog.text
    works_again.set()
    checkpointer.wait()
    assert [path.name for path in tmp_path.iterdir()] == ["000000100.pt"]


# --- the data, on one rank --------------------------------------------------------------------------------------------


def test_other_images_are_refused_unless_accepted(lab: Lab) -> None:
    change_manifest(lab)


def test_a_shard_with_one_wrong_bit_is_refused(lab: Lab) -> None:
    change_shard(lab)
