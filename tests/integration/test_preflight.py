"""`python -m launch.preflight`: a table of what is there, and each thing that would make a run fail."""

from __future__ import annotations

import errno
import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.data.pixel_file import BYTES_LEFT_FREE, PixelSet, write_pixel_file
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.world import World
from launch import checks, disk, preflight, probes
from tests.running import ROOT, SMALL, free_port, run_command, run_module, run_train, user_errors
from tests.shard_folders import jpeg, write_shards


def launch(rank: int, port: int, *arguments: object, seconds: int = 60, first: str = "") -> subprocess.Popen[str]:
    """One of two ranks, each on a node of its own as far as it knows; `first` is Python that it runs first."""
    environment = {"RANK": str(rank), "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    environment |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "SLURMD_NODENAME": f"node{rank}"}
    patience = f"import launch.probes; launch.probes.CONNECT_SECONDS = {seconds}; "
    program = (
        patience + first + "import runpy; runpy.run_module('launch.preflight', run_name='__main__', alter_sys=True)"
    )
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


def on_two_nodes(
    run: Path, first: Path, second: Path, only_on_second: str = ""
) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """Exit status and answers of two nodes with a shard folder each; the second one runs some Python first."""
    port = free_port()
    ranks = [
        launch(0, port, "--run.dir", run, "--data.shards", first),
        launch(1, port, "--run.dir", run, "--data.shards", second, first=only_on_second),
    ]
    found = answers(ranks[0])
    _, errors = ranks[1].communicate(timeout=30)
    assert ranks[0].returncode == ranks[1].returncode, errors
    return ranks[0].returncode, found


def test_two_ranks_print_a_line_for_each_question(shards: Path, tmp_path: Path) -> None:
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "-m", "launch.preflight"]
    result = run_command([*torchrun, *SMALL, "--data.shards", str(shards), "--run.dir", str(tmp_path / "run")])
    assert result.returncode == 0, result
    lines = [line.split("│")[1].strip() for line in result.stdout.splitlines() if line.startswith("│")]
    names = ["versions", "CPUs", "GPUs", "shards", "run folder", "disk", "W&B"]
    names += ["all-reduce", "decoding", "training", "time"]
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


def test_a_gpu_without_room_for_a_step_leaves_no_rank_waiting(shards: Path, tmp_path: Path) -> None:
    full = "import torch; from dcgan_dist.gan.step import GanStep; "
    full += "GanStep.__call__ = lambda *_: (_ for _ in ()).throw(torch.OutOfMemoryError()); "
    status, found = on_two_nodes(tmp_path / "run", shards, shards, only_on_second=full)
    assert status == 1
    assert [(check["node"], check["status"]) for check in found["training"]] == [("node1", "fail")]
    assert "a step does not fit into memory" in found["training"][0]["found"]


SPY = """
import json, os, runpy, sys
import torch
from dcgan_dist.gan.step import GanStep

def note(step, batch):
    networks, given = (step.generator.network, step.discriminator.network), [t for t in batch if t is not None]
    layers = [type(layer).__name__ for network in networks for layer in network.modules()]
    seen = [layers, step.reuse_fakes, step.loss_weight, step.generator.average_gradients is None]
    seen += [step.precision.name, [str(t.dtype) for t in given], torch.backends.cudnn.benchmark]
    seen += [[list(t.shape), list(t.stride())] for t in given]
    with open(f"{out}-{os.environ.get('RANK', '0')}", "a") as file:
        print(json.dumps(seen), file=file)
    return take(step, batch)

out, module, *sys.argv[1:] = sys.argv[1:]
take, GanStep.__call__ = GanStep.__call__, note
runpy.run_module(module, run_name="__main__", alter_sys=True)
"""


@pytest.mark.parametrize(
    ("ranks", "settings"),
    [
        (2, ("--data.global_batch_size", 23, "--model.discriminator_input_norm", "false", "--train.r1_gamma", 0.1)),
        (1, ("--train.reuse_fakes", "false", "--train.deterministic", "false", "--model.spectral_norm", "true")),
    ],
    ids=["two ranks", "one rank"],
)
def test_the_step_that_is_timed_is_the_runs(
    shards: Path, tmp_path: Path, ranks: int, settings: tuple[object, ...]
) -> None:
    (tmp_path / "spy.py").write_text(SPY)
    torchrun = ["-m", "torch.distributed.run", "--nproc_per_node", str(ranks)] if ranks > 1 else []
    common = (*SMALL, "--data.shards", shards, "--data.batch_size_per_rank", 24, "--train.total_images", 46, *settings)
    for module in ("dcgan_dist.train", "launch.preflight"):
        spied = [sys.executable, *torchrun, str(tmp_path / "spy.py"), str(tmp_path / module), module]
        result = run_command(
            [*spied, *map(str, common), "--run.dir", str(tmp_path / "run")], env={"PYTHONPATH": str(ROOT)}
        )
        assert result.returncode == 0, result
    for rank in range(ranks):
        trained, timed = (
            (tmp_path / f"{module}-{rank}").read_text().splitlines()
            for module in ("dcgan_dist.train", "launch.preflight")
        )
        assert len(set(trained)) == 1
        assert timed[-1] == trained[0]


def test_a_run_folder_that_cannot_be_written_fails_the_quick_check_too(shards: Path) -> None:
    result = run_module("launch.preflight", "--quick", "--data.shards", shards, "--run.dir", "/proc/run")
    assert result.returncode == 1
    assert "error: run folder on" in user_errors(result)[0]
    assert "/proc: cannot be written" in result.stderr


@pytest.mark.parametrize("reason", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_a_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: int) -> None:
    config = parse_arguments(["--run.dir", str(tmp_path / "run")])

    def full(descriptor: int) -> None:
        raise OSError(reason, os.strerror(reason))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        (check,) = disk.check_run_folder(config)
    assert (check.status, check.advice) == ("fail", "make room, or choose another --run.dir")
    assert not list(tmp_path.iterdir())
    needed = 4 * disk.checkpoint_bytes(config)
    assert [disk.check_disk(config, tmp_path, free).status for free in (needed - 1, needed, 10 * needed + 2**31)] == [
        *("fail", "warn", "ok")
    ]


def test_the_pixels_that_a_run_will_keep_are_counted(shards: Path, tmp_path: Path) -> None:
    own = Path(shutil.copytree(shards, tmp_path / "shards", ignore=shutil.ignore_patterns("pixels")))
    settings = ["--data.shards", str(own), "--run.dir", str(tmp_path / "run"), "--data.image_size", "32"]
    config = parse_arguments(settings)
    manifest = read_manifest(own)
    pixels = PixelSet("faces", "all", manifest.fingerprint, manifest.samples, 32, "short_side", "any")
    assert disk.pixels_to_come(config) == pixels.file_bytes
    assert disk.pixels_to_come(parse_arguments([*settings, "--data.keep_pixels", "false"])) == 0
    assert disk.pixels_to_come(parse_arguments([*settings, "--data.loader", "stream"])) == 0
    room, checkpoints = BYTES_LEFT_FREE + pixels.file_bytes, 4 * disk.checkpoint_bytes(config)
    assert "for pixels" in disk.check_disk(config, tmp_path, room).found
    assert "for pixels" not in disk.check_disk(config, tmp_path, room - 1).found, "so few bytes stay for other things"
    assert disk.check_disk(config, tmp_path, checkpoints).status == "warn"
    list(write_pixel_file(own / "pixels" / pixels.file_name, pixels, [memoryview(bytes(pixels.pixel_bytes))]))
    assert disk.pixels_to_come(config) == 0
    assert disk.check_pixels(config, tmp_path) == []


def test_the_checkpoints_of_all_epochs_must_fit(shards: Path) -> None:
    every = ("--data.shards", str(shards), "--checkpoint.keep_every_images", "100", "--checkpoint.keep_last", "2")
    counts = [
        disk.most_checkpoints(parse_arguments([*every, *more]))
        for more in (["--train.epochs", "4"], ["--train.total_images", "300"], ["--data.shards", "/nowhere"])
    ]
    assert counts == [2 + 4 * 256 // 100 + 1, 2 + 3 + 1, 2 + 1]


def test_the_size_of_a_checkpoint_is_known_beforehand(shards: Path, tmp_path: Path) -> None:
    settings = (*SMALL, "--model.base_channels", "32", "--data.shards", str(shards), "--run.dir", str(tmp_path / "run"))
    assert run_train(1, *settings, "--data.batch_size_per_rank", 8, "--train.total_images", 8).returncode == 0
    written = next((tmp_path / "run" / "checkpoints").glob("*.pt")).stat().st_size
    assert disk.checkpoint_bytes(parse_arguments(list(settings))) == pytest.approx(written, rel=0.05)


def test_w_and_b_that_cannot_be_reached_fails_only_where_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.delenv("WANDB_MODE", raising=False)
    status = {
        mode: checks.check_wandb(parse_arguments(["--track.wandb", mode]).track).status
        for mode in ("online", "auto", "offline", "off")
    }
    assert status == {"online": "fail", "auto": "warn", "offline": "ok", "off": "ok"}


def test_w_and_b_behind_a_proxy_is_reached_through_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", "https://wandb.invalid")
    config = parse_arguments(["--track.wandb", "online"])
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        monkeypatch.setenv("https_proxy", f"http://user:secret@127.0.0.1:{proxy.getsockname()[1]}")
        monkeypatch.setenv("no_proxy", "")
        through = checks.check_wandb(config.track)
        monkeypatch.setenv("no_proxy", ".invalid")
        past = checks.check_wandb(config.track)
    assert (through.status, through.found) == ("ok", "online at wandb.invalid through 127.0.0.1")
    assert past.status == "fail"


@pytest.mark.parametrize(
    ("visible", "from_slurm", "status", "found"),
    [
        ("-1", "", "warn", "none: ranks compute on the CPU"),
        ("NoDevFiles", "0", "warn", "none: ranks compute on the CPU"),
        ("GPU-of-another-node", "", "fail", "1 x H100, driver 1, but torch cannot use them: driver too old"),
        ("", "2", "fail", "2 from SLURM, but torch cannot use them: driver too old"),
    ],
)
def test_gpus_that_torch_cannot_use_are_a_failure(
    monkeypatch: pytest.MonkeyPatch, visible: str, from_slurm: str, status: str, found: str
) -> None:
    monkeypatch.setattr(checks, "_nvidia_smi", lambda: ["H100, driver 1"])
    monkeypatch.setattr(checks, "why_torch_cannot_use_gpus", lambda: "driver too old")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    monkeypatch.setenv("SLURM_GPUS_ON_NODE", from_slurm)
    check = checks.check_gpus(ranks=1)
    assert (check.status, check.found) == (status, found)


def test_torch_says_why_it_cannot_use_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-of-another-node")
    reason = checks.why_torch_cannot_use_gpus()
    assert reason and "\n" not in reason


def test_too_few_cores_are_a_warning_with_the_option_that_asks_for_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {5})
    assert checks.check_cpus(ranks=1).status == "ok"
    few = checks.check_cpus(ranks=8)
    assert (few.status, few.found) == ("warn", "1 for 8 ranks")
    assert "--cpus-per-task" in few.advice


def test_a_time_limit_that_is_too_short_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SLURM_JOB_END_TIME", str(int(time.time()) + 1000))
    config = parse_arguments([])
    assert checks.check_time_limit(config.run, 10_000, 100).status == "ok"
    short = checks.check_time_limit(config.run, 1_000_000, 100)
    assert (short.status, short.advice) == ("warn", "the job will be started about 11 times")


def test_too_many_shards_for_the_open_files_are_a_failure(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_many(*_: object) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(checks, "MappedShards", too_many)
    check = checks.check_shards(parse_arguments(["--data.shards", str(shards)]).data)
    assert (check.status, check.advice) == ("fail", "raise `ulimit -n`")


def test_fewer_images_than_a_batch_are_decoded_too(tmp_path: Path) -> None:
    write_shards(tmp_path, {f"{number:06d}": jpeg(80, 70, seed=number) for number in range(5)}, smallest=(80, 70))
    config = parse_arguments(["--data.shards", str(tmp_path), "--data.decoder", "pillow"])
    check = probes.check_decoding(config.data, World(0, 1, 0, 1, torch.device("cpu")))
    assert (check.status, check.found) == ("ok", "too few images to measure")


def test_a_question_that_goes_wrong_is_answered_with_a_failure() -> None:
    (answer,) = preflight.answers("decoding", lambda: next(iter(list[checks.Check]())))
    assert (answer.name, answer.status, answer.found) == ("decoding", "fail", "StopIteration: ")


def test_damaged_shards_are_a_failure(shards: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(shards, tmp_path / "copy")
    tar = next(copy.glob("*.tar"))
    tar.write_bytes(tar.read_bytes()[:-512])
    check = checks.check_shards(parse_arguments(["--data.shards", str(copy)]).data)
    assert check.status == "fail"
    assert tar.name in check.found
