"""`python -m launch.preflight`: a table of what is there, and each thing that would make a run fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from dcgan_dist.command_line import parse_arguments
from launch import checks
from tests.running import ROOT, SMALL, free_port, run_command, run_module, run_train, user_errors


def launch(rank: int, port: int, *arguments: object, seconds: int = 60) -> subprocess.Popen[str]:
    """One of two ranks, each on a node of its own as far as it knows."""
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SLURMD_NODENAME": f"node{rank}"}
    patience = f"import launch.probes; launch.probes.CONNECT_SECONDS = {seconds}; "
    program = patience + "import runpy; runpy.run_module('launch.preflight', run_name='__main__', alter_sys=True)"
    return subprocess.Popen(
        [sys.executable, "-c", program, "--json", *SMALL, *map(str, arguments)],
        cwd=ROOT,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def answers(process: subprocess.Popen[str]) -> dict[str, list[dict[str, Any]]]:
    """What a rank printed, by the name of the check."""
    output, errors = process.communicate(timeout=100)
    assert output, errors
    found: dict[str, list[dict[str, Any]]] = {}
    for check in json.loads(output)["checks"]:
        found.setdefault(check["name"], []).append(check)
    return found


def on_two_nodes(run: Path, first: Path, second: Path) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit status and answers of two nodes with a shard folder each."""
    port = free_port()
    ranks = [
        launch(rank, port, "--run.dir", run, "--data.shards", folder) for rank, folder in ((0, first), (1, second))
    ]
    found = answers(ranks[0])
    ranks[1].communicate(timeout=30)
    assert ranks[0].returncode == ranks[1].returncode
    return ranks[0].returncode, found


def test_two_ranks_print_a_line_for_each_question(shards: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "launch.preflight"]
    result = run_command([*torchrun, *SMALL, "--data.shards", str(shards), "--run.dir", str(tmp_path / "run")])
    assert result.returncode == 0, result
    lines = [line.split("│")[1].strip() for line in result.stdout.splitlines() if line.startswith("│")]
    names = ["versions", "GPUs", "shards", "run folder", "disk", "W&B", "all-reduce", "decoding", "training", "time"]
    assert [line for line in lines if line] == names, result.stdout
    assert "2 ranks of cpu: sum is right" in result.stdout
    assert not (tmp_path / "run").exists()


def test_shards_missing_on_one_node_are_named_with_the_node(shards: Path, tmp_path: Path) -> None:
    status, found = on_two_nodes(tmp_path / "run", shards, tmp_path / "nowhere")
    assert status == 1
    assert [(check["node"], check["status"]) for check in found["shards"]] == [("node0", "ok"), ("node1", "fail")]
    assert str(tmp_path / "nowhere") in found["shards"][1]["found"]


def test_other_shards_on_one_node_are_noticed(shards: Path, faces: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    packed = run_module("data_prep.celeba", "--source", faces, "--out", other, "--split", "all", "--seed", 1)
    assert packed.returncode == 0, packed
    status, found = on_two_nodes(tmp_path / "run", shards, other)
    assert status == 1
    assert [check["status"] for check in found["shards"]] == ["ok", "ok", "fail"]
    assert "not the same on all nodes" in found["shards"][2]["found"]


def test_a_rank_that_finds_no_other_says_so_in_time(shards: Path, tmp_path: Path) -> None:
    begin = time.monotonic()
    rank = launch(0, free_port(), "--run.dir", tmp_path / "run", "--data.shards", shards, seconds=3)
    found = answers(rank)
    assert rank.returncode == 1
    assert [check["status"] for check in found["connection"]] == ["fail"]
    assert "rank 0 of 2 did not reach the others within 3 seconds" in found["connection"][0]["found"]
    assert time.monotonic() - begin < 60


def test_a_run_folder_that_cannot_be_written_fails_the_quick_check_too(shards: Path) -> None:
    result = run_module("launch.preflight", "--quick", "--data.shards", shards, "--run.dir", "/proc/run")
    assert result.returncode == 1
    assert "error: run folder on" in user_errors(result)[0]
    assert "/proc: cannot be written" in result.stderr


def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = parse_arguments(["--run.dir", str(tmp_path / "run")])

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (check,) = checks.check_run_folder(config)
    assert (check.status, check.advice) == ("fail", "make room, or choose another --run.dir")
    assert not list(tmp_path.iterdir())
    needed = 4 * checks.checkpoint_bytes(config)
    assert [checks.check_disk(config, tmp_path, free).status for free in (needed - 1, needed, 10 * needed + 2**31)] == [
        *("fail", "warn", "ok")
    ]


def test_the_size_of_a_checkpoint_is_known_beforehand(shards: Path, tmp_path: Path) -> None:
    settings = (*SMALL, "--model.base_channels", "32", "--data.shards", str(shards), "--run.dir", str(tmp_path / "run"))
    assert run_train(1, *settings, "--data.batch_size_per_rank", 8, "--train.total_images", 8).returncode == 0
    written = next((tmp_path / "run" / "checkpoints").glob("*.pt")).stat().st_size
    assert checks.checkpoint_bytes(parse_arguments(list(settings))) == pytest.approx(written, rel=0.05)


def test_w_and_b_that_cannot_be_reached_fails_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    status = {
        mode: checks.check_wandb(parse_arguments(["--track.wandb", mode])).status
        for mode in ("online", "auto", "offline", "off")
    }
    assert status == {"online": "fail", "auto": "warn", "offline": "ok", "off": "ok"}


def test_a_time_limit_that_is_too_short_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1000))
    config = parse_arguments([])
    assert checks.check_time_limit(config, 10_000, 100).status == "ok"
    short = checks.check_time_limit(config, 1_000_000, 100)
    assert (short.status, short.advice) == ("warn", "the job will be started about 11 times")


def test_damaged_shards_are_a_failure(shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "copy")
    tar = next(copy.glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    check = checks.check_shards(parse_arguments(["--data.shards", str(copy)]))
    assert check.status == "fail"
    assert tar.name in check.found
