"""What W&B is told, read back from what it records offline."""

from __future__ import annotations

import dataclasses
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.config import RunConfig, TrackConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.open_trackers import open_trackers
from dcgan_dist.tracking.tracker import Row
from dcgan_dist.tracking.weights_and_biases import NodeTracker, WandbRun, WandbTracker, choose_mode, run_id
from tests.wandb_files import logged, run_record, summary, wandb_records

ALONE = World(0, 1, 0, 1, torch.device("cpu"))
SETTINGS = {"data": {"image_size": 32}}
ENVIRONMENT = {"ranks": 2, "precision": "bf16", "device_name": "A Fine GPU", "dataset": "synthetic (all)"}


def run_in(folder: Path, rollbacks: int = 0, **track: Any) -> WandbRun:
    config = TrackConfig(wandb="offline", wandb_project="faces", **track)
    return WandbRun("abcd1234", "name-of-run", config, folder, SETTINGS, ENVIRONMENT, rollbacks)


def records_of(folder: Path, run: str = "abcd1234") -> list[Any]:
    (file,) = (folder / "wandb").glob(f"offline-run-*/run-{run}.wandb")
    return wandb_records(file)


def row(images_seen: int, **figures: float) -> Row:
    return {"step": images_seen // 10, "images_seen": images_seen, "loss/generator": 2.0, **figures}


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grid.png"
    Image.fromarray(np.full((6, 8, 3), 77, dtype=np.uint8)).save(path)
    return path


def test_an_offline_run_is_read_back(tmp_path: Path, picture: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_TAGS", "first try, 32px")
    tracker = WandbTracker(run_in(tmp_path), "offline", already_sent=10, warnings=2)
    for seen, distance in ((10, 9.0), (20, 3.0), (30, 5.0)):  # the first was recorded before a crash
        best = {"best/swd": min(3.0, distance), "best/swd_images_seen": 20}
        tracker.log(row(seen, **{"quality/swd": distance, **best}))
        if seen == 20:
            tracker.alert("D wins", "no gradient is left")
        tracker.image("samples/fixed_latents", picture, seen)
    tracker.checkpoint(picture, 30)
    tracker.close("done")

    records = records_of(tmp_path)
    run = run_record(records)
    assert (run.project, run.run_group, run.job_type) == ("faces", "name-of-run", "train")
    assert set(run.tags) == {"32px", "bf16", "2 ranks", "A Fine GPU", "synthetic (all)", "first try"}
    steps = logged(records)
    assert [(step["_step"], step["images_seen"], step["quality/swd"]) for step in steps] == [
        (20, 20, 3.0),
        (30, 30, 5.0),
    ]
    assert all(step["samples/fixed_latents._type"] == "image-file" for step in steps)
    assert [(step["events/ranks"], step.get("events/warnings")) for step in steps] == [(2, 3), (2, None)]
    told = summary(records)
    assert (told["best/swd"], told["best/swd_images_seen"], told["status"]) == (3.0, 20, "done")
    assert told["warnings"] == ""
    assert not any(record.HasField("artifact") for record in records)


def test_the_summary_names_the_signs_of_collapse_that_lasted(tmp_path: Path) -> None:
    tracker = WandbTracker(run_in(tmp_path), "offline", already_sent=-1)
    tracker.log(row(10))
    tracker.close("done", ["guessing", "exploding"])
    told = summary(records_of(tmp_path))
    assert (told["status"], told["warnings"]) == ("done", "guessing, exploding")


def test_checkpoints_are_sent_as_versions_of_one_model_if_asked(tmp_path: Path, picture: Path) -> None:
    tracker = WandbTracker(run_in(tmp_path, wandb_checkpoints=True), "offline", already_sent=-1)
    tracker.checkpoint(picture, 100)
    picture.unlink()  # as old checkpoints are, before anything is sent
    tracker.close("done")
    (artifact,) = [record.artifact for record in records_of(tmp_path) if record.HasField("artifact")]
    assert (artifact.name, artifact.type) == ("abcd1234-checkpoint", "model")
    assert {"latest", "images-100"} <= set(artifact.aliases)
    (entry,) = artifact.manifest.contents or artifact.manifest.entries
    assert entry.path == "checkpoint.pt"


def test_a_further_node_is_a_run_of_its_own_in_the_same_group(tmp_path: Path) -> None:
    tracker = NodeTracker(run_in(tmp_path), "offline", rank=8)
    tracker.log(row(10))
    tracker.close("preempted")
    records = records_of(tmp_path, "abcd1234-nodeofrank8")
    run = run_record(records)
    assert (run.run_group, run.job_type, run.display_name) == ("name-of-run", "node", "name-of-run node of rank 8")
    assert logged(records) == []


def test_after_a_rollback_the_run_goes_on_as_another_in_the_same_group(tmp_path: Path) -> None:
    tracker = WandbTracker(run_in(tmp_path, rollbacks=2), "offline", already_sent=-1)
    tracker.log(row(10))
    tracker.close("done")
    run = run_record(records_of(tmp_path, "abcd1234-r2"))
    assert (run.run_group, run.display_name) == ("name-of-run", "name-of-run rollback 2")


def test_the_id_of_a_run_stays_that_of_its_folder_or_checkpoint(tmp_path: Path) -> None:
    first = run_id(tmp_path / "wandb", None)
    assert len(first) == 8
    assert run_id(tmp_path / "wandb", None) == first
    assert run_id(tmp_path / "wandb", "fromthere") == first
    assert run_id(tmp_path / "lost", "fromthere") == "fromthere"
    assert run_id(tmp_path / "lost", None) == "fromthere"


def test_without_wandb_the_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = TrackConfig(wandb="offline", wandb_project="faces?", tensorboard=False)
    settings = dataclasses.replace(TrainConfig(), track=config, run=RunConfig(dir=str(tmp_path)))
    trackers, _ = open_trackers(settings, RunFolder(tmp_path), ENVIRONMENT, None, ALONE)
    assert [type(tracker).__name__ for tracker in trackers] == ["JsonlTracker"]
    assert "goes on without W&B" in caplog.text


def test_auto_means_online_only_where_a_key_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    with caplog.at_level(logging.INFO):
        assert choose_mode("auto") == "off"
    assert "W&B is off: no API key found" in caplog.text
    (tmp_path / "netrc").write_text("machine api.wandb.ai login user password key\n")
    assert choose_mode("auto") == "online"
    (tmp_path / "netrc").write_bytes(b"# M\xfcller\nmachine wandb.example.org login user password key\n")
    assert choose_mode("auto") == "off"
    monkeypatch.setenv("WANDB_CONFIG_DIR", str(tmp_path))
    (tmp_path / "settings").write_text("[default]\nbase_url = https://wandb.example.org\n")
    assert choose_mode("auto") == "online", "the key is for the server of `wandb login --host`"
    monkeypatch.setenv("WANDB_BASE_URL", "http://[elsewhere")
    assert choose_mode("auto") == "off"
    (tmp_path / "settings").write_bytes(b"\xff")
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.example.org")
    assert choose_mode("auto") == "off", "settings that cannot be read"
    (tmp_path / "settings").unlink()
    assert choose_mode("auto") == "online"
    monkeypatch.setenv("WANDB_MODE", "offline")
    assert choose_mode("auto") == "offline"
    assert choose_mode("off") == "off"
