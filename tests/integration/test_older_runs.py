"""A run and a folder of shards that version 472036e made, in tests/data: today's commands go on with them."""

from __future__ import annotations

import json
import shutil
import tarfile
from pathlib import Path

import pytest

from dcgan_dist.command_line.yaml_settings import REMOVED
from tests.running import checkpoints, read_status, run_module, run_train

OLD = Path(__file__).parent.parent / "data" / "from_472036e"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy of the run, of 64 images."""
    return Path(shutil.copytree(OLD / "run", tmp_path / "run"))


def test_its_run_goes_on_by_its_own_settings(run: Path) -> None:
    arguments = ("--config", run / "config.yaml", "--data.shards", OLD / "shards", "--run.dir", run)
    result = run_train(1, *arguments, "--train.total_images", 128, "--data.cache_dir", run.with_name("pixels"))
    assert result.returncode == 0, result
    assert "64 images were seen before" in result.stderr
    for key in REMOVED:
        assert f"note: {run / 'config.yaml'}: {key} was removed" in result.stderr
    assert [path.name for path in checkpoints(run)][-1] == "000000128.pt"
    assert (read_status(run)["status"], read_status(run)["images_seen"]) == ("done", 128)
    rows = [json.loads(line)["images_seen"] for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert rows == [32, 64, 96, 128]


def test_its_checkpoint_draws_and_its_run_has_a_report(run: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    for command in (("generate", "--checkpoint", run, "--num-images", 4, "--out", out), ("report", run)):
        result = run_module(f"dcgan_dist.{command[0]}", *command[1:])
        assert result.returncode == 0, result
    assert out.exists() and (run / "report.html").exists()


def test_its_shards_are_whole_and_still_done(tmp_path: Path) -> None:
    shards, source = tmp_path / "shards", tmp_path / "source"
    shutil.copytree(OLD / "shards", shards)
    shutil.copytree(OLD / "source", source)
    for path in sorted(shards.glob("*.tar")):  # the source's images are in them, untouched
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(".jpg"):
                    tar.extract(member, source / "img_align_celeba", filter="data")
    before = {path.name: path.read_bytes() for path in shards.iterdir()}
    assert run_module("data_prep.verify", shards).returncode == 0
    arguments = ("--source", source, "--split", "all", "--samples-per-shard", 12)
    again = run_module("data_prep.celeba", *arguments, "--out", shards)
    assert again.returncode == 0 and "already done, 24 images" in again.stdout, again
    assert run_module("data_prep.celeba", *arguments, "--out", tmp_path / "anew").returncode == 0
    for folder in (shards, tmp_path / "anew"):
        assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
