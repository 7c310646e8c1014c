"""What becomes of a job, case by case, without a cluster."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from launch.after_run import (
    DONE,
    FAILED,
    GAVE_UP,
    LOST_A_NODE,
    START_AGAIN,
    STOPPED_BY,
    bound,
    decide,
    read_attempt,
)
from tests.running import run_module

OLD, NEW = 1.0, 2.0
SIGNALLED = f"{STOPPED_BY}SIGUSR2"
LOST = f"{LOST_A_NODE}no connection"
# srun ends the other nodes when one has failed, and that is a signal like any other.
RANK_FAILED = f"""
ValueError: no such thing
{GAVE_UP}rank 1 failed first, with status 1
srun: error: node2: task 1: Exited with exit code 1
srun: Terminating StepId=7.0
slurmstepd: error: *** STEP 7.0 ON node1 CANCELLED AT 2026-01-01T00:00:00 ***
{STOPPED_BY}SIGTERM
"""
NO_WAY_TO_THE_HEAD = f"""
{LOST_A_NODE}The connection to the C10d store has failed.
srun: error: node2: task 1: Exited with exit code 1
{STOPPED_BY}SIGTERM
"""
NO_PYTHON = f"""
slurmstepd: error: execve(): /nowhere/bin/python: No such file or directory
srun: error: node2: task 1: Exited with exit code 2
{STOPPED_BY}SIGTERM
"""
BOTH_KILLED_EARLY = """
srun: error: node2: task 1: User defined signal 2
srun: error: node1: task 0: Exited with exit code 143
"""


def attempt_folder(folder: Path, log: str, status: Mapping[str, object], newest: int = 64) -> Path:
    """An attempt that began with a preempted run of 64 images, and left this status and this checkpoint behind."""
    run = folder / "run"
    (run / "checkpoints").mkdir(parents=True, exist_ok=True)
    (run / "checkpoints" / f"{newest:09d}.pt").touch()
    before = {"folder": str(run), "status": {"status": "preempted", "updated": OLD}, "newest_checkpoint": 64}
    (folder / "before.json").write_text(json.dumps(before))
    (folder / "log").write_text(log)
    (run / "status.json").write_text(json.dumps({"images_seen": 64, "reason": "", "updated": NEW, **status}))
    return folder


@pytest.mark.parametrize(
    ("what", "status", "log", "srun_status", "expected", "reason"),
    [
        ("done", {"status": "done"}, "", 0, DONE, "done at 64 images"),
        ("done, healthy", {"status": "done", "warnings": []}, "", 0, DONE, "done at 64 images"),
        (
            "collapsed",
            {"status": "done", "warnings": ["narrow", "guessing"]},
            "",
            0,
            DONE,
            "collapse: narrow, guessing",
        ),
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
        ("stale, both killed", {"updated": OLD}, BOTH_KILLED_EARLY, 143, START_AGAIN, "SIGTERM before it began"),
        ("stale, nodes never met", {"status": "preempted", "updated": OLD}, LOST, 1, FAILED, "before the run began"),
        ("stale, one cannot meet", {"updated": OLD}, NO_WAY_TO_THE_HEAD, 143, FAILED, "before the run began"),
        ("stale, one has no Python", {"updated": OLD}, NO_PYTHON, 2, FAILED, "before the run began"),
        ("stale, one node fails", {"updated": OLD}, RANK_FAILED, 1, FAILED, "before the run began"),
        ("killed", {"status": "running"}, "", 137, START_AGAIN, "all ranks were killed at 64 images"),
        ("hang", {"status": "running"}, "error: rank 1 is stuck", 1, FAILED, "rank 1 is stuck"),
        ("failed", {"status": "failed", "reason": "ValueError: x"}, "", 1, FAILED, "ValueError: x"),
        (
            "one node fails",
            {"status": "failed", "reason": "RuntimeError: gone"},
            RANK_FAILED,
            1,
            FAILED,
            "rank 1 failed",
        ),
        ("node lost", {"status": "failed", "reason": "RuntimeError: reset"}, LOST, 1, START_AGAIN, "loss of another"),
        ("left by one that failed", {"status": "failed", "reason": "x"}, f"{LOST}\n{RANK_FAILED}", 1, FAILED, "x"),
        ("peer gone while stopping", {"status": "failed", "reason": "Reset"}, SIGNALLED, 0, START_AGAIN, "SIGUSR2 at"),
        ("full disk", {"status": "failed", "reason": "RunFailed: disk"}, SIGNALLED, 1, FAILED, "RunFailed: disk"),
    ],
)
def test_a_job_is_done_failed_or_starts_again(
    tmp_path: Path, what: str, status: Mapping[str, object], log: str, srun_status: int, expected: int, reason: str
) -> None:
    _, attempt = read_attempt(attempt_folder(tmp_path, log, status), srun_status)
    decision, why = decide(attempt)
    assert (decision, reason in why) == (expected, True), (what, decision, why)


PREEMPTED = {"status": "preempted", "reason": "SIGTERM"}
KILLED = {"status": "running"}


@pytest.mark.parametrize(
    ("status", "newest_checkpoints", "expected"),
    [
        (PREEMPTED, [64, 64, 64], [START_AGAIN, START_AGAIN, FAILED]),
        (PREEMPTED, [64, 64, 128, 64, 64, 64], [START_AGAIN] * 5 + [FAILED]),
        (PREEMPTED, [128] * 5, [START_AGAIN] * 5),
        (KILLED, [64, 64], [START_AGAIN, FAILED]),
        (KILLED, [128] * 5, [START_AGAIN] * 5),
    ],
)
def test_a_job_does_not_queue_itself_for_ever_without_a_newer_checkpoint(
    tmp_path: Path, status: Mapping[str, object], newest_checkpoints: list[int], expected: list[int]
) -> None:
    decisions = []
    for newest in newest_checkpoints:
        shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)
        run, attempt = read_attempt(attempt_folder(tmp_path, "", status, newest), srun_status=1)
        decisions.append(bound(run, "7", attempt, max_requeues=2)[0])
    assert decisions == expected


def test_a_job_of_another_number_counts_anew(tmp_path: Path) -> None:
    run, attempt = read_attempt(attempt_folder(tmp_path, "", KILLED), srun_status=1)
    assert [bound(run, job, attempt, max_requeues=2)[0] for job in ("7", "7", "8")] == [
        START_AGAIN,
        FAILED,
        START_AGAIN,
    ]


@pytest.mark.parametrize(("most", "status"), [(1, START_AGAIN), (0, FAILED)])
def test_the_last_line_of_the_log_says_what_becomes_of_the_job(tmp_path: Path, most: int, status: int) -> None:
    folder = attempt_folder(tmp_path, "", PREEMPTED)
    result = run_module("launch.after_run", folder, "--job", 7, "--srun-status", 0, "--max-requeues", most)
    assert result.returncode == status
    then = {1: "queued again (1 of 1 without a newer checkpoint)", 0: "MAX_REQUEUES is 0: sbatch it again to go on"}
    beginning = "error: " if status == FAILED else ""
    assert result.stdout == f"{beginning}{tmp_path / 'run'}: stopped by SIGTERM at 64 images; {then[most]}\n"


def test_settings_are_checked_without_a_rank(tmp_path: Path) -> None:
    result = run_module("launch.before_run", tmp_path / "before.json", "--train.epochs", "0")
    assert (result.returncode, result.stdout) == (2, "")
    assert re.fullmatch(r"error: train.epochs = 0.0: must be a positive number.*\n", result.stderr)
    assert not (tmp_path / "before.json").exists()
