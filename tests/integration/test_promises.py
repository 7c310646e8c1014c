"""What the README promises, seen from outside: commands are run and their run folders looked at."""

from __future__ import annotations

import math
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from dcgan_dist.base.files import read_rows
from dcgan_dist.config import TrainConfig
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from tests.integration.conftest import EQUIVALENCE, GLOBAL_BATCH, STEPS
from tests.running import (
    SMALL,
    assert_same_tensors,
    checkpoints,
    kill_tree,
    load_checkpoint,
    metric_rows,
    read_status,
    run_train,
    started,
    train_command,
    wait_until,
)

TOTAL = STEPS * GLOBAL_BATCH
CONTRACT_KEYS = (
    *("step", "images_seen", "epoch", "loss/discriminator", "loss/generator", "score/real", "score/fake"),
    *("speed/images_per_second", "speed/data_wait_fraction", "memory/peak_gib"),
)

RunOn = Callable[[int], Path]


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# --- a run is its configuration ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranks", [2, 4])
def test_more_ranks_train_the_same_networks(equivalent_run: RunOn, ranks: int) -> None:
    alone, together = metric_rows(equivalent_run(1)), metric_rows(equivalent_run(ranks))
    assert len(alone) == STEPS
    assert_same_figures(alone, together)


def assert_same_figures(alone: list[dict[str, float]], together: list[dict[str, float]]) -> None:
    for one, many in zip(alone, together, strict=True):
        assert (one["step"], one["images_seen"], one["epoch"]) == (many["step"], many["images_seen"], many["epoch"])
        for name in ("loss/discriminator", "loss/generator", "score/real", "score/fake"):
            assert math.isclose(one[name], many[name], rel_tol=1e-8), (name, one, many)


@pytest.mark.parametrize("ranks", [2, 4])
def test_more_ranks_draw_the_same_grids(equivalent_run: RunOn, ranks: int) -> None:
    names = ["000000000.png", f"{TOTAL:09d}.png", f"ema/{TOTAL:09d}.png", "real.png"]
    for name in names:
        one, many = (pixels(equivalent_run(count) / "samples" / name) for count in (1, ranks))
        assert np.abs(one - many).max() <= 1, name


def test_a_grid_drawn_more_often_changes_no_weight(equivalent_run: RunOn, shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    changes = ("--sample.every_images", GLOBAL_BATCH, "--data.shards", shards, "--run.dir", folder)
    assert run_train(1, *EQUIVALENCE, *changes).returncode == 0
    assert len(list((folder / "samples").glob("0*.png"))) == STEPS + 1
    often, seldom = load_checkpoint(checkpoints(folder)[-1]), load_checkpoint(checkpoints(equivalent_run(1))[-1])
    for part in ("generator", "discriminator", "ema", "optimizers"):
        assert_same_tensors(often[part], seldom[part], part)


def test_pixels_from_a_file_train_the_same_weights_as_those_just_decoded(
    equivalent_run: RunOn, shards: Path, tmp_path: Path
) -> None:
    runs = [equivalent_run(ranks) for ranks in (1, 2)]  # the later one has not decoded
    found = [row["text"] for run in runs for row in read_rows(run / "events.jsonl") if row["kind"] == "pixels"]
    assert found
    assert all(text.startswith(f"pixels from {shards / 'pixels'}") for text in found)
    decoded = tmp_path / "decoded"
    settings = ("--data.shards", shards, "--run.dir", decoded, "--data.keep_pixels", "false")
    assert run_train(2, *EQUIVALENCE, *settings).returncode == 0
    one, other = (load_checkpoint(checkpoints(run)[-1]) for run in (decoded, runs[1]))
    for part in ("generator", "discriminator", "ema", "optimizers"):
        assert_same_tensors(one[part], other[part], part)


# --- what a run leaves behind -----------------------------------------------------------------------------------------


def test_a_finished_run_says_that_it_is_done(finished_run: Path) -> None:
    status = read_status(finished_run)
    assert (status["status"], status["images_seen"], status["reason"]) == ("done", TOTAL, "")
    assert status["warnings"] == []


def test_every_row_of_figures_holds_what_scripts_rely_on(finished_run: Path) -> None:
    rows = metric_rows(finished_run)
    for number, row in enumerate(rows, start=1):
        assert set(CONTRACT_KEYS) <= set(row)
        assert (row["step"], row["images_seen"]) == (number, number * GLOBAL_BATCH)
        assert row["epoch"] == pytest.approx(row["images_seen"] / 256, abs=1e-4)
        assert all(math.isfinite(value) for value in row.values())
        assert 0 < row["score/real"] < 1
        assert 0 < row["score/fake"] < 1
        assert 0 <= row["speed/data_wait_fraction"] <= 1
        assert row["speed/images_per_second"] > 0


def test_the_grids_are_of_the_untrained_generator_the_last_one_and_the_data(finished_run: Path) -> None:
    names = sorted(path.name for path in (finished_run / "samples").glob("*.png"))
    assert names == ["000000000.png", f"{TOTAL:09d}.png", "real.png"]
    grids = [pixels(finished_run / "samples" / name) for name in names]
    assert all(grid.shape == (3 * 34 + 2, 4 * 34 + 2, 3) for grid in grids)  # 10 images of 32 pixels, 2 between them
    assert np.abs(grids[0] - grids[1]).max() > 1  # pale: batch norm's statistics have followed for twenty steps only
    averages = [pixels(finished_run / "samples" / "ema" / name) for name in names[:2]]  # calibrated before they draw
    assert np.abs(averages[0] - averages[1]).max() > 10
    assert np.abs(grids[0] - grids[2]).max() > 10


def test_checkpoints_load_into_networks_with_ordinary_batch_norm(equivalent_run: RunOn) -> None:
    paths = checkpoints(equivalent_run(2))
    assert [path.name for path in paths] == ["000000220.pt", "000000440.pt"]
    for path in paths:
        saved = load_checkpoint(path)
        for networks in ("generator", "ema"):
            Generator(32, 16, 8).load_state_dict(saved[networks])
        Discriminator(32, 8, True).load_state_dict(saved["discriminator"])
        assert saved["images_seen"] == int(path.stem)
        assert (saved["seed"], saved["global_batch"]) == (0, GLOBAL_BATCH)
        assert saved["config"]["data"]["image_size"] == 32


def test_the_resolved_configuration_lies_beside_the_run(finished_run: Path) -> None:
    content = yaml.safe_load((finished_run / "config.yaml").read_text())
    sections = TrainConfig().as_dict()
    assert {name: set(fields) for name, fields in content.items()} == {
        name: set(fields) for name, fields in sections.items()
    }
    assert content["data"]["global_batch_size"] == GLOBAL_BATCH
    assert content["run"]["dir"] == str(finished_run)


def test_tensorboard_has_its_event_file(finished_run: Path) -> None:
    assert list((finished_run / "tensorboard").glob("events.out.tfevents.*"))


def test_nothing_half_written_is_left(finished_run: Path) -> None:
    assert not list(finished_run.rglob("*.tmp"))


def test_called_again_a_finished_run_says_so_and_trains_no_more(finished_run: Path, shards: Path) -> None:
    before = {path: path.stat().st_mtime_ns for path in finished_run.rglob("*") if path.name != "status.json"}
    result = run_train(1, *EQUIVALENCE, "--data.shards", shards, "--run.dir", finished_run)
    assert result.returncode == 0, result
    assert "is finished" in result.stderr
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert read_status(finished_run)["status"] == "done"


# --- resume is resume -------------------------------------------------------------------------------------------------


def test_a_run_can_go_on_with_another_number_of_ranks(equivalent_run: RunOn, shards: Path, tmp_path: Path) -> None:
    half_way = checkpoints(equivalent_run(2))[0]
    onward = ("--run.resume", half_way, "--data.shards", shards, "--run.dir", tmp_path / "onward")
    result = run_train(1, *EQUIVALENCE, *onward)
    assert result.returncode == 0, result
    rows = metric_rows(tmp_path / "onward")
    assert len(rows) == STEPS // 2
    assert (tmp_path / "onward" / "samples" / "real.png").exists()
    assert_same_figures(metric_rows(equivalent_run(1))[STEPS // 2 :], rows)


@pytest.mark.timeout(600)  # six launches of two ranks
def test_a_run_stopped_in_every_way_ends_in_the_weights_of_an_undisturbed_one(shards: Path, tmp_path: Path) -> None:
    settings = (
        *SMALL,
        *("--data.decoder", "auto"),  # DALI, where it is installed
        *("--data.loader", "stream"),
        *("--data.shards", shards),
        *("--data.batch_size_per_rank", 32),
        *("--data.flip", "true"),
        *("--track.every_images", 64),
        *("--checkpoint.every_images", 512),
    )
    stopped, straight = tmp_path / "stopped", tmp_path / "straight"

    before = 0
    for number in (signal.SIGTERM, signal.SIGUSR2):
        _train_until_signalled(stopped, number, *settings)
        status = read_status(stopped)
        assert status["status"] == "preempted"
        assert status["reason"] in ("SIGTERM", "SIGUSR2")  # torchrun may pass on another signal than it got
        assert status["images_seen"] > before
        assert checkpoints(stopped)[-1].name == f"{status['images_seen']:09d}.pt"
        before = status["images_seen"]

    _kill_after_next_checkpoint(stopped, *settings)
    assert read_status(stopped)["status"] == "running"

    total = metric_rows(stopped)[-1]["images_seen"] + 128
    for folder in (stopped, straight):
        result = run_train(2, *settings, "--train.total_images", total, "--run.dir", folder)
        assert result.returncode == 0, result
        assert read_status(folder)["status"] == "done"

    one, other = (load_checkpoint(checkpoints(folder)[-1]) for folder in (stopped, straight))
    assert_same_tensors(one, other)
    seen = [row["images_seen"] for row in metric_rows(stopped)]
    assert seen == [row["images_seen"] for row in metric_rows(straight)] == list(range(64, int(total) + 1, 64))


def _train_until_signalled(folder: Path, number: signal.Signals, *settings: object) -> None:
    """Goes on with a run that would never end, and asks it to stop after its next row of figures."""
    before = len(metric_rows(folder))
    with started(train_command(2, *settings, "--train.total_images", 10**9, "--run.dir", folder)) as process:
        wait_until(lambda: len(metric_rows(folder)) > before, process)
        process.send_signal(number)
        output = process.communicate(timeout=60)
    assert "stopped by" in output[1], output


def _kill_after_next_checkpoint(folder: Path, *settings: object) -> None:
    """Goes on with a run and ends all its processes at once a little after the next checkpoint."""
    newest = checkpoints(folder)[-1]
    with started(train_command(2, *settings, "--train.total_images", 10**9, "--run.dir", folder)) as process:
        wait_until(lambda: checkpoints(folder)[-1] != newest, process)
        rows = len(metric_rows(folder))
        wait_until(lambda: len(metric_rows(folder)) > rows + 1, process)
        kill_tree(process)
