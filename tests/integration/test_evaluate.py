"""Scores and the watch, seen from outside: the command, evaluation during training, and runs that collapse."""

from __future__ import annotations

import itertools
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.evaluate import _request, build_parser
from dcgan_dist.metrics import evaluate_checkpoint as evaluating
from tests.integration.conftest import EQUIVALENCE
from tests.running import (
    Finished,
    checkpoints,
    load_checkpoint,
    metric_rows,
    read_status,
    run_command,
    run_module,
    run_train,
    user_errors,
)
from tests.wandb_files import logged, summary, wandb_records

COMMAND = "dcgan_dist.evaluate"
COMPARED = ("loss/discriminator", "loss/generator", "score/real", "score/fake")


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def evaluate(ranks: int, *arguments: object) -> Finished:
    torchrun = ["torch.distributed.run", "--nproc_per_node", str(ranks), "-m"] if ranks > 1 else []
    return run_command([sys.executable, "-m", *torchrun, COMMAND, *map(str, arguments)])


@pytest.fixture
def run(finished_run: Path, tmp_path: Path) -> Path:
    """A finished run that a test may write into."""
    return Path(shutil.copytree(finished_run, tmp_path / "run"))


@pytest.fixture(scope="module")
def evaluated(finished_run: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], Path]:
    """The scores.jsonl that the command leaves on so many ranks, with 100 images: one chunk and a part of one."""
    found: dict[int, Path] = {}

    def on(ranks: int) -> Path:
        if ranks not in found:
            folder = tmp_path_factory.mktemp("evaluated") / str(ranks)
            shutil.copytree(finished_run, folder / "run")
            shutil.copytree(shards, folder / "shards", ignore=shutil.ignore_patterns("evaluation"))
            options = ("--shards", folder / "shards", "--num-images", 100, "--json")
            result = evaluate(ranks, "--checkpoint", folder / "run", *options)
            assert result.returncode == 0, result
            found[ranks] = folder / "run" / "scores.jsonl"
            assert json.loads(result.stdout) == rows_of(found[ranks])
        return found[ranks]

    return on


# --- the command ------------------------------------------------------------------------------------------------------


def test_one_and_two_ranks_give_the_same_scores(evaluated: Callable[[int], Path]) -> None:
    one, two = (rows_of(evaluated(ranks)) for ranks in (1, 2))
    assert [row["metric"] for row in one] == ["swd", "ms_ssim"]
    for alone, together in zip(one, two, strict=True):
        assert alone["protocol_key"] == together["protocol_key"]
        for name in ("value", "floor"):
            assert together[name] == pytest.approx(alone[name], rel=1e-6)


def test_a_score_is_written_with_all_it_depends_on(evaluated: Callable[[int], Path], shards: Path) -> None:
    swd, similarity = rows_of(evaluated(1))
    assert (swd["checkpoint"], swd["images_seen"], swd["network"]) == ("000000440.pt", 440, "ema")
    protocol = swd["protocol"]
    assert protocol["dataset"] == json.loads((shards / "manifest.json").read_text())["fingerprint"]
    assert (protocol["image_size"], protocol["crop"], protocol["decoder"]) == (32, "short_side", "pillow on cpu")
    assert (protocol["num_images"], protocol["seed"]) == (100, 0)
    assert swd["value"] == pytest.approx(sum(swd["parts"].values()) / 2)
    assert 0 < swd["floor"] < swd["value"]  # twenty steps draw no faces
    assert similarity["floor"] < similarity["value"] <= 1


def test_what_is_known_of_the_real_images_is_kept_beside_the_shards(evaluated: Callable[[int], Path]) -> None:
    kept = list((evaluated(1).parents[1] / "shards" / "evaluation").iterdir())
    assert len(kept) == 2
    folder = evaluated(1).parents[1] / "shards"
    assert run_module("data_prep.verify", folder).returncode == 0


def test_scores_of_another_protocol_are_not_compared(run: Path, evaluated: Callable[[int], Path], shards: Path) -> None:
    options = ("--shards", shards, "--metrics", "swd", "--compare", evaluated(1))
    result = evaluate(1, "--checkpoint", run, *options, "--num-images", 64)
    assert result.returncode == 2
    (error,) = user_errors(result)
    assert "num_images is 64 and was 100" in error


def test_scores_of_the_same_protocol_stand_side_by_side(
    run: Path, evaluated: Callable[[int], Path], shards: Path
) -> None:
    options = ("--shards", shards, "--metrics", "swd", "--num-images", 100, "--no-ema")
    result = evaluate(1, "--checkpoint", run, *options, "--compare", evaluated(1))
    assert result.returncode == 0, result
    assert f"{rows_of(evaluated(1))[0]['value']:.4g}" in result.stdout
    assert "scores.jsonl" in result.stderr
    (row,) = rows_of(run / "scores.jsonl")
    assert row["network"] == "generator"


WRONG_USAGE = {
    "no checkpoint": (("--checkpoint", "{tmp}/none"), "no checkpoint there"),
    "no shards": (("--checkpoint", "{run}", "--shards", "{tmp}/none"), "no such folder of shards"),
    "too many images": (("--checkpoint", "{run}", "--num-images", "257"), "has 256 real images"),
    "no weights": (("--checkpoint", "{run}", "--metrics", "fid"), "there are no Inception weights"),
    "no such weights": (("--checkpoint", "{run}", "--inception-weights", "{tmp}/none"), "no such file of Inception"),
    "other weights": (("--checkpoint", "{run}", "--inception-weights", "{run}/status.json"), "--accept-weights"),
    "no weights at all": (
        ("--checkpoint", "{run}", "--accept-weights", "--inception-weights", "{run}/status.json", "--metrics", "fid"),
        "does not hold the Inception weights",
    ),
    "place that is a file": (("--checkpoint", "{run}", "--out", "{run}/status.json/x"), "cannot be written"),
    "nothing to compare with": (("--checkpoint", "{run}", "--compare", "{tmp}"), "has no swd to compare with"),
    "damaged shards": (("--checkpoint", "{run}", "--shards", "{tmp}/damaged"), "python -m data_prep.verify"),
    "name that no file can have": (("--checkpoint", "x" * 300), "cannot be read"),
}


def evaluate_here(*arguments: object) -> int:
    """The command in this process, on one rank."""
    parsed = build_parser().parse_args([*map(str, arguments)])
    return evaluating.evaluate(_request(parsed, evaluating.Request))


@pytest.fixture
def here(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """Lets the command run in this process and leaves no trace of it."""
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    before, handlers = torch.get_num_threads(), logging.root.handlers[:]
    yield
    torch.set_num_threads(before)
    logging.root.handlers[:] = handlers


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("case", WRONG_USAGE)
def test_wrong_usage_ends_with_one_line(case: str, run: Path, shards: Path, tmp_path: Path) -> None:
    tar = next(Path(shutil.copytree(shards, tmp_path / "damaged")).glob("*.tar"))
    content = bytearray(tar.read_bytes())
    content[len(content) // 2] ^= 1
    tar.write_bytes(content)
    arguments, expected = WRONG_USAGE[case]
    with pytest.raises(UserError) as caught:
        evaluate_here(*(text.format(tmp=tmp_path, run=run) for text in arguments))
    assert expected in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.usefixtures("here")
def test_scores_that_the_disk_does_not_take_are_shown_all_the_same(
    run: Path, shards: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(evaluating, "append_scores", full)
    with pytest.raises(RunFailed, match="No space left on device"):
        evaluate_here("--checkpoint", run, "--shards", shards, "--num-images", 4, "--metrics", "swd")
    assert "swd" in capsys.readouterr().out


# --- during training --------------------------------------------------------------------------------------------------

SCORED = (
    *EQUIVALENCE,
    *("--evaluate.every_images", 66, "--evaluate.num_images", 64, "--track.every_images", 176),
    *("--checkpoint.keep_best", "true", "--checkpoint.keep_last", 1, "--checkpoint.every_images", 110),
)


def test_scores_are_taken_while_it_trains_and_the_best_checkpoint_is_kept(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = (*SCORED, "--data.shards", shards, "--run.dir", folder)
    assert run_train(2, *arguments, "--train.total_images", 220).returncode == 0
    first = rows_of(folder / "scores.jsonl")
    assert [row["images_seen"] for row in first] == [66, 132, 198, 220]
    with (folder / "scores.jsonl").open("a") as file:  # as if it had been killed later on
        file.write(json.dumps(first[-1] | {"images_seen": 264, "value": 0.0}) + "\n")
    assert run_train(2, *arguments).returncode == 0
    scores = rows_of(folder / "scores.jsonl")
    assert [row["images_seen"] for row in scores] == [66, 132, 198, 220, 264, 330, 396, 440]
    assert scores[:4] == first
    in_rows = {row["images_seen"]: row["quality/swd"] for row in metric_rows(folder) if "quality/swd" in row}
    assert in_rows == {row["images_seen"]: row["value"] for row in scores}
    best = min(scores, key=lambda row: row["value"])["images_seen"]
    assert metric_rows(folder)[-1]["best/swd_images_seen"] == best
    assert {int(path.stem) for path in checkpoints(folder)} == {best, 440}
    events = rows_of(folder / "events.jsonl")
    assert [(row["kind"], row["images_seen"]) for row in events if row["kind"] not in ("warning", "pixels")] == [
        *(("start", 0), ("done", 220), ("resume", 220), ("done", 440))
    ]
    assert "2 rank(s)" in events[0]["text"]


# --- collapse ---------------------------------------------------------------------------------------------------------

# The demo's networks and rates, but fifty times the rate for the discriminator: it is far ahead at once.
COLLAPSING = (
    *("--data.image_size", 32, "--data.decoder", "pillow", "--model.base_channels", 32, "--train.precision", "fp32"),
    *("--data.global_batch_size", 64, "--train.total_images", 40_000, "--track.every_images", 1600),
    *("--optim.generator_lr", 4e-4, "--optim.discriminator_lr", 0.02),
    *("--track.tensorboard", "false", "--track.wandb", "off"),
)


def test_a_run_driven_into_collapse_is_warned_of_in_time_and_ended(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    result = run_train(1, *COLLAPSING, "--train.on_collapse", "stop", "--data.shards", shards, "--run.dir", folder)
    assert result.returncode == 1, result
    start, warning, *_, failed = (row for row in rows_of(folder / "events.jsonl") if row["kind"] != "pixels")
    assert (start["kind"], warning["kind"], failed["kind"]) == ("start", "warning", "failed")
    assert warning["images_seen"] <= 40_000 / 20
    assert warning["text"] in result.stderr
    assert read_status(folder)["status"] == "failed"
    assert warning["text"] in read_status(folder)["reason"]
    assert warning["text"] in read_status(folder)["warning_texts"].values()
    (error,) = user_errors(result)
    assert "train.on_collapse = stop" in error


def test_a_run_driven_into_collapse_goes_back_on_all_ranks_and_no_more_often_than_allowed(
    shards: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    arguments = (*COLLAPSING, "--data.shards", shards, "--run.dir", folder)
    rollback = ("--train.on_collapse", "rollback", "--train.max_rollbacks", 1, "--track.wandb", "offline")
    result = run_train(2, *arguments, *rollback)
    assert result.returncode == 1, result
    events = rows_of(folder / "events.jsonl")
    kinds = [kind for kind, _ in itertools.groupby(event["kind"] for event in events if event["kind"] != "pixels")]
    assert kinds == ["start", "warning", "rollback", "start", "warning", "failed"]
    assert "1 rollback(s) did not help" in read_status(folder)["reason"]
    assert [event["kind"] for event in events].count("failed") == 1
    assert "with 0.01 as the discriminator's rate" in next(e["text"] for e in events if e["kind"] == "rollback")
    assert (folder / "report.html").exists()
    (before,) = metric_rows(folder)
    assert before["rate/discriminator"] == pytest.approx(0.01)
    known = (folder / "wandb" / "run_id").read_text().strip()
    for line, status in ((known, "rolled back"), (f"{known}-r1", "failed")):
        (file,) = folder.glob(f"wandb/offline-run-*/run-{line}.wandb")
        records = wandb_records(file)
        assert summary(records)["status"] == status
        assert 1600 in [step["images_seen"] for step in logged(records)]
        alerts = [record.alert.title for record in records if record.HasField("alert")]
        assert ("rollback to 0 images" in alerts) == (status == "rolled back")

    result = run_train(2, *arguments, "--train.total_images", 1600)
    assert result.returncode == 0, result
    (again,) = metric_rows(folder)  # started anew, it goes on as the rollback left it: latents, rate and all
    assert [again[name] for name in COMPARED] == [before[name] for name in COMPARED]
    last = load_checkpoint(checkpoints(folder)[-1])
    assert last["watch"]["rollbacks"] == 1
    assert last["optimizers"]["discriminator"]["param_groups"][0]["lr"] == pytest.approx(0.01)
