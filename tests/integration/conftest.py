"""Runs that several integration tests look at."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.running import SMALL, run_train

STEPS, GLOBAL_BATCH = 20, 22  # 22 over 4 ranks: shares of 5 and 6

# What the equivalence of rank counts is checked with. The 440 images reach into the second epoch of 256.
EQUIVALENCE = (
    *SMALL,
    *("--train.precision", "fp64"),
    *("--data.global_batch_size", GLOBAL_BATCH),
    *("--data.flip", "true"),
    *("--ema.half_life_images", 2 * GLOBAL_BATCH),  # so that the average, too, has moved at the end
    *("--train.total_images", STEPS * GLOBAL_BATCH),
    *("--track.every_images", GLOBAL_BATCH),
    *("--checkpoint.every_images", 220),
    *("--sample.num_images", 10),
)


@pytest.fixture(scope="session")
def equivalent_run(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The folder of one and the same run on so many ranks; the one on a single rank has every tracker but W&B on."""
    folders: dict[int, Path] = {}

    def run_on(ranks: int) -> Path:
        if ranks not in folders:
            folder = tmp_path_factory.mktemp("equivalent") / f"{ranks}-ranks"
            trackers = ("--track.tensorboard", "true", "--track.report", "true") if ranks == 1 else ()
            result = run_train(
                ranks, *EQUIVALENCE, *trackers, "--data.shards", shards, "--run.dir", folder, timeout=240
            )
            assert result.returncode == 0, result
            folders[ranks] = folder
        return folders[ranks]

    return run_on


@pytest.fixture(scope="session")
def finished_run(equivalent_run: Callable[[int], Path]) -> Path:
    """A run on one rank that went to its end. Tests that change it take a copy."""
    return equivalent_run(1)
