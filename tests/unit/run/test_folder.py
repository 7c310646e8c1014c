"""A run folder belongs to one process at a time."""

from __future__ import annotations

import fcntl
from pathlib import Path

import pytest

from dcgan_dist.base.errors import UserError
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.figures import StageClock
from dcgan_dist.tracking.journal import Journal
from tests.running import read_status


def test_a_start_that_finds_a_run_finished_leaves_the_status_of_one_that_trains_on(tmp_path: Path) -> None:
    """As where `--train.epochs 10` runs in one shell, and the command with fewer is given again in another."""
    folder = RunFolder(tmp_path)
    folder.write_status("running", 64, "", {})
    with (tmp_path / ".lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training there"):
            folder.lock()
        Journal(folder, StageClock(), is_main=True).finished_before(32, {})
        assert read_status(tmp_path)["status"] == "running"
    Journal(folder, StageClock(), is_main=True).finished_before(32, {})
    assert read_status(tmp_path)["status"] == "done"
