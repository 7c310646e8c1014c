"""What a run does otherwise when torchrun or SLURM has started it again."""

from __future__ import annotations

import fcntl
import logging
import threading
from pathlib import Path

import pytest

from dcgan_dist import run_folder
from dcgan_dist.errors import UserError
from dcgan_dist.run_folder import RunFolder


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_it_waits_for_the_ranks_of_the_start_before_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with (tmp_path / ".lock").open("wb") as other, caplog.at_level(logging.WARNING):
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        RunFolder(tmp_path).create("run: {}")
    assert caplog.text.count("another process still holds") == 1
    assert (tmp_path / "config.yaml").exists()


def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(run_folder, "RESTART_PATIENCE_SECONDS", 0.1)
    with (tmp_path / ".lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training there"):
            RunFolder(tmp_path).create("run: {}")
