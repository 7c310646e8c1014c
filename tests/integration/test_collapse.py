"""A run that ends with signs of collapse says so where people look, and a healthy one says nothing."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.running import Finished, checkpoints, load_checkpoint, read_status, run_command, run_train
from tests.wandb_files import summary, wandb_records

TOTAL = 4_000  # 500 steps: 25, the least that a sign has to last, are a twentieth of the run
SETTINGS = (
    *("--data.image_size", 32, "--data.decoder", "pillow", "--data.global_batch_size", 8),
    *("--model.base_channels", 8, "--train.precision", "fp32"),
    *("--optim.generator_lr", 4e-4, "--optim.discriminator_lr", 4e-4, "--train.total_images", TOTAL),
    *("--track.every_images", TOTAL // 20, "--track.tensorboard", "false"),
)


def train_broken(*arguments: object) -> Finished:
    """The training command with batch norm that does not subtract the mean."""
    command = [sys.executable, "-m", "tests.faults.faulty_train", *map(str, (*SETTINGS, *arguments))]
    return run_command(command, env={"FAULT": "batch-norm"})


@pytest.fixture(scope="module")
def collapsed(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Finished]:
    """The folder and the output of a run that trained to its end and learned nothing."""
    folder = tmp_path_factory.mktemp("collapsed") / "run"
    result = train_broken("--data.shards", shards, "--run.dir", folder, "--track.wandb", "offline")
    assert result.returncode == 0, result
    return folder, result


def warnings_in(folder: Path) -> list[dict[str, Any]]:
    events = map(json.loads, (folder / "events.jsonl").read_text().splitlines())
    return [event for event in events if event["kind"] == "warning"]


def last_words(result: Finished) -> list[str]:
    """The lines of the output that begin with "warning:", behind their time; they must be the last."""
    lines = [line.partition(" ")[2] for line in result.stderr.splitlines()]
    first = next((number for number, line in enumerate(lines) if line.startswith("warning:")), len(lines))
    assert all(line.startswith("warning:") for line in lines[first:])
    return lines[first:]


def test_it_is_warned_of_within_a_twentieth_of_the_run(collapsed: tuple[Path, Finished]) -> None:
    early = [event["text"] for event in warnings_in(collapsed[0]) if event["images_seen"] <= TOTAL / 20]
    assert any("gradient has exploded" in text for text in early)


def test_its_status_is_done_with_warnings(collapsed: tuple[Path, Finished]) -> None:
    status = read_status(collapsed[0])
    assert (status["status"], status["images_seen"]) == ("done", TOTAL)
    assert "exploding" in status["warnings"]
    assert status["warnings"] == load_checkpoint(checkpoints(collapsed[0])[-1])["watch"]["shown"]


def test_its_last_lines_say_what_is_wrong_and_what_to_do(collapsed: tuple[Path, Finished]) -> None:
    folder, result = collapsed
    status, (*signs, advice) = read_status(folder), last_words(result)
    assert signs == [
        f"warning: the run ended with a sign of collapse ({kind}): {status['warning_texts'][kind]}"
        for kind in status["warnings"]
    ]
    assert str(folder / "samples") in advice
    assert "--train.on_collapse rollback" in advice


def test_its_report_begins_with_them(collapsed: tuple[Path, Finished]) -> None:
    folder, _ = collapsed
    page = (folder / "report.html").read_text()
    assert "done, with warnings" in page
    banner = page[page.index('class="banner"') : page.index('class="facts"')]
    assert all(f"<b>{kind}</b>" in banner for kind in read_status(folder)["warnings"])
    assert Image.open(folder / "report.png").width > 1000


def test_its_summary_on_wandb_names_them(collapsed: tuple[Path, Finished]) -> None:
    folder, _ = collapsed
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    told = summary(wandb_records(file))
    assert (told["status"], told["warnings"]) == ("done", ", ".join(read_status(folder)["warnings"]))


def test_started_again_it_keeps_and_repeats_them(collapsed: tuple[Path, Finished], shards: Path) -> None:
    folder, first = collapsed
    before = read_status(folder)
    again = train_broken("--data.shards", shards, "--run.dir", folder)
    assert "is finished" in again.stderr
    assert read_status(folder) | {"updated": 0} == before | {"updated": 0}
    assert last_words(again) == last_words(first)


def test_a_healthy_run_ends_without_a_word_but_where_its_time_went(shards: Path, tmp_path: Path) -> None:
    arguments = ("--data.shards", shards, "--run.dir", tmp_path / "run", "--track.wandb", "off")
    began = time.monotonic()
    result = run_train(1, *SETTINGS, *arguments, "--train.total_images", TOTAL // 2)
    took = time.monotonic() - began
    assert result.returncode == 0, result
    status = read_status(tmp_path / "run")
    assert (status["status"], status["warnings"], status["warning_texts"]) == ("done", [], {})
    assert last_words(result) == warnings_in(tmp_path / "run") == []
    assert 'class="banner"' not in (tmp_path / "run" / "report.html").read_text()
    stages = ["start", "decode", "samples", "train", "checkpoints", "trackers", "report"]
    assert list(status["seconds"]) == stages
    assert 0.6 * took < sum(status["seconds"].values()) <= took  # the interpreter ends after them
    assert f" train {status['seconds']['train']:.1f}" in result.stderr.splitlines()[-1]
    assert "Wall time" in (tmp_path / "run" / "report.html").read_text()
