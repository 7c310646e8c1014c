"""The study of recipes as a user runs it: killed half way, and again to its end."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from pathlib import Path

import pytest

from benchmarks.recipes.recipe import Recipe
from benchmarks.recipes.running import carry_out
from benchmarks.recipes.study import Study
from tests.running import checkpoints, processes_naming, read_status, run_command, started, user_errors, wait_until

COMMAND = (sys.executable, "-m", "benchmarks.recipes")
TINY = (
    *("--size", "32", "--images", "96", "--points", "1", "--score-images", "64", "--at-once", "2"),
    *("--all", "model.base_channels=8", "model.latent_size=16", "data.global_batch_size=32", "data.decoder=pillow"),
    *("train.precision=fp32", "ema.half_life_images=64"),
    *("--recipe", "paper", "--recipe", "swift", "optim.generator_lr=1e-3", "--seeds", "0", "1"),
)


@pytest.mark.timeout(600)  # fourteen processes; half a minute on two idle cores
def test_a_study_that_is_killed_leaves_nothing_running_and_goes_on_where_it_was(shards: Path, tmp_path: Path) -> None:
    out = tmp_path / "study"
    command = [*COMMAND, *TINY, "--shards", str(shards), "--out", str(out)]
    first = out / "paper" / "seed-0"
    with started(command) as process:
        wait_until(lambda: (first / "status.json").exists() and read_status(first)["status"] == "done", process, 180)
        second = run_command(command)
        assert second.returncode == 2
        assert user_errors(second) == [
            f"error: --out {out}: another study is running there; wait for it, or choose another folder"
        ]
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
        until = time.monotonic() + 20
        while processes_naming(out) and time.monotonic() < until:
            time.sleep(0.1)  # the system ends them a moment later
        assert processes_naming(out) == []
    trained = checkpoints(first)[-1].stat().st_mtime_ns

    result = run_command(command, timeout=400)
    assert result.returncode == 0, result
    assert checkpoints(first)[-1].stat().st_mtime_ns == trained  # it was not trained again
    assert "0 of 4 runs and 0 images left" in result.stderr
    found = json.loads((out / "study.json").read_text())
    assert list(found["recipes"]) == ["paper", "swift"]
    for recipe in found["recipes"].values():
        assert [run["images seen"] for run in recipe["runs"].values()] == [96, 96]
        assert [len(run["curve"]) for run in recipe["runs"].values()] == [1, 1]
        assert {"swd best", "swd end", "ms_ssim end", "images per second"} <= recipe["over the seeds"].keys()
    assert found["floors"].keys() == {"swd", "ms_ssim"}
    assert "swift" in result.stdout
    assert "4 of 4 runs done" in (out / "study.html").read_text()


def test_a_run_that_fails_is_told_with_its_reason(shards: Path, tmp_path: Path) -> None:
    study = Study(tmp_path, shards, 32, 96, 1, (0,), ("swd",), 64, (), {}, 1)
    (trial,) = study.trials([Recipe("blocked", {})])
    trial.folder.parent.mkdir()
    trial.folder.write_text("a file in the place of the run's folder")
    (problem,) = carry_out(study, [trial], at_once=1, gpus=0)
    assert problem.startswith(f"blocked, seed 0: error: run.dir = {trial.folder}: cannot be written")


def test_a_misspelt_recipe_is_told_before_anything_is_trained(shards: Path, tmp_path: Path) -> None:
    result = run_command([*COMMAND, "--shards", str(shards), "--out", str(tmp_path), "--recipe", "odd", "train.los=x"])
    assert result.returncode == 2
    (error,) = user_errors(result)
    assert "recipe odd: train.los" in error
    assert not list(tmp_path.glob("odd/*"))
