"""What becomes of a job, case by case, without a cluster."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from launch.after_run import DONE, FAILED, LOST_A_NODE, START_AGAIN, STOPPED_BY, decide, read_attempt
from tests.running import run_module

OLD, NEW = 1.0, 2.0
SIGNALLED = f"{STOPPED_BY}SIGUSR2"
LOST = f"{LOST_A_NODE}no connection"


def attempt_folder(folder: Path, log: str, **status: object) -> Path:
    """An attempt that began with a preempted run, and left this status behind."""
    run = folder / "run"
    run.mkdir()
    before = {"folder": str(run), "status": {"status": "preempted", "updated": OLD}}
    (folder / "before.json").write_text(json.dumps(before))
    (folder / "log").write_text(log)
    (run / "status.json").write_text(json.dumps({"images_seen": 64, "reason": "", "updated": NEW} | status))
    return folder


@pytest.mark.parametrize(
    ("what", "status", "log", "srun_status", "expected", "reason"),
    [
        ("done", {"status": "done"}, "", 0, DONE, "done at 64 images"),
        ("done after a restart", {"status": "done"}, "error: rank 1 hangs", 0, DONE, "done at 64 images"),
        ("done before", {"status": "done", "updated": OLD}, "", 0, DONE, "done at 64 images"),
        ("done before, mistake now", {"status": "done", "updated": OLD}, "error: no shards", 0, FAILED, "no shards"),
        ("done before, crash now", {"status": "done", "updated": OLD}, "", 1, FAILED, "ended before the run began"),
        ("stopped", {"status": "preempted", "reason": "SIGUSR2"}, SIGNALLED, 0, START_AGAIN, "by SIGUSR2 at 64"),
        ("time limit", {"status": "preempted", "reason": "the time limit"}, "", 0, START_AGAIN, "the time limit"),
        ("STOP file", {"status": "preempted", "reason": "the STOP file"}, "", 0, DONE, "stopped by the STOP file"),
        ("stale, mistake", {"status": "preempted", "updated": OLD}, "error: no shards", 0, FAILED, "no shards"),
        ("stale, crash", {"status": "preempted", "updated": OLD}, "", 1, FAILED, "ended before the run began"),
        ("stale, signal", {"status": "preempted", "updated": OLD}, SIGNALLED, 0, START_AGAIN, "before it began"),
        ("stale, killed", {"status": "preempted", "updated": OLD}, "", 140, START_AGAIN, "SIGUSR2 before it began"),
        ("stale, nodes never met", {"status": "preempted", "updated": OLD}, LOST, 1, FAILED, "before the run began"),
        ("killed", {"status": "running"}, "", 137, START_AGAIN, "all ranks were killed at 64 images"),
        ("hang", {"status": "running"}, "error: rank 1 is stuck", 1, FAILED, "rank 1 is stuck"),
        ("failed", {"status": "failed", "reason": "ValueError: x"}, "", 1, FAILED, "ValueError: x"),
        ("node lost", {"status": "failed", "reason": "RuntimeError: reset"}, LOST, 1, START_AGAIN, "loss of another"),
        ("peer gone while stopping", {"status": "failed", "reason": "Reset"}, SIGNALLED, 0, START_AGAIN, "SIGUSR2 at"),
        ("full disk", {"status": "failed", "reason": "RunFailed: disk"}, SIGNALLED, 1, FAILED, "RunFailed: disk"),
    ],
)
def test_a_job_is_done_failed_or_starts_again(
    tmp_path: Path, what: str, status: Mapping[str, object], log: str, srun_status: int, expected: int, reason: str
) -> None:
    _, attempt = read_attempt(attempt_folder(tmp_path, log, **status), srun_status)
    decision, why = decide(attempt)
    assert (decision, reason in why) == (expected, True), (what, decision, why)


@pytest.mark.parametrize(("requeues", "status"), [(1, START_AGAIN), (2, FAILED)])
def test_a_job_does_not_queue_itself_for_ever(tmp_path: Path, requeues: int, status: int) -> None:
    folder = attempt_folder(tmp_path, "", status="preempted", reason="SIGTERM")
    counts = ("--srun-status", 0, "--requeues", requeues, "--max-requeues", 2)
    result = run_module("launch.after_run", folder, *counts)
    assert result.returncode == status
    assert re.search(r"queued again \(2 of 2\)|queued again 2 times already: sbatch it again", result.stdout)


def test_settings_are_checked_without_a_rank(tmp_path: Path) -> None:
    result = run_module("launch.before_run", tmp_path / "before.json", "--train.epochs", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr == "error: train.epochs = 0.0: must be a positive number\n"
    assert not (tmp_path / "before.json").exists()
