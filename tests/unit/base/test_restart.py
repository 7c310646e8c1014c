"""What a run does because torchrun or SLURM ends it and starts it again."""

from __future__ import annotations

import fcntl
import logging
import signal
import threading
from pathlib import Path

import pytest

from dcgan_dist.base.errors import UserError
from dcgan_dist.run import folder as run_folder
from dcgan_dist.run import stop
from dcgan_dist.run.folder import RunFolder


@pytest.mark.parametrize("variable", ["SLURM_RESTART_COUNT", "TORCHELASTIC_RESTART_COUNT"])
def test_it_waits_for_the_ranks_of_the_start_before_to_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variable: str
) -> None:
    monkeypatch.setenv(variable, "1")
    with (tmp_path / ".lock").open("wb") as other, caplog.at_level(logging.WARNING):
        fcntl.flock(other, fcntl.LOCK_EX)
        threading.Timer(0.5, fcntl.flock, (other, fcntl.LOCK_UN)).start()
        RunFolder(tmp_path).create("run: {}")
    assert caplog.text.count("waiting for the end of another process") == 1
    assert (tmp_path / "config.yaml").exists()


def test_it_does_not_wait_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_RESTART_COUNT", "1")
    monkeypatch.setattr(run_folder, "RESTART_PATIENCE_SECONDS", 0.1)
    with (tmp_path / ".lock").open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another process is training there"):
            RunFolder(tmp_path).create("run: {}")


def test_after_the_warning_of_a_time_limit_a_rank_may_take_as_long_as_torchrun_waits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seconds = {}
    for timeout in ("5", "30", "100"):
        monkeypatch.setenv("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", timeout)
        seconds[timeout] = stop.grace_seconds(signal.SIGUSR2), stop.grace_seconds(signal.SIGTERM)
    assert seconds == {"5": (20, 20), "30": (20, 20), "100": (90, 20)}
