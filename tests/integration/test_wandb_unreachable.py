"""W&B's service fails in every way that a service can: training begins in seconds and everything is recorded."""

from __future__ import annotations

import re
import socket
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import SMALL, Finished, read_status, run_command, run_train, started, wait_until
from tests.wandb_files import logged, run_record, summary, wandb_records
from tests.wandb_server import wandb_server

KEY = "0123456789abcdef0123456789abcdef01234567"

# Starts the tracker as a run does, tells it three rows, and ends it.
PROGRAM = """
import logging, sys, time
from pathlib import Path
import torch
from dcgan_dist.config import RunConfig, TrackConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.open_trackers import open_trackers

logging.basicConfig(format="%(message)s", level=logging.INFO)
folder, seconds_to_finish = Path(sys.argv[1]), float(sys.argv[2])
from dcgan_dist.tracking import weights_and_biases
weights_and_biases.SECONDS_TO_FINISH[False] = seconds_to_finish
track = TrackConfig(wandb="online", tensorboard=False)
config = TrainConfig(run=RunConfig(name="faces", dir=str(folder)), track=track)
told = {"ranks": 1, "precision": "fp32", "device_name": "cpu", "dataset": "synthetic"}
rank = int(sys.argv[3])
if rank:
    from dcgan_dist.tracking.weights_and_biases import NodeTracker, WandbRun
    from dcgan_dist.tracking.open_trackers import _online_or_offline
    run = WandbRun("abcd1234", "faces", track, folder, config.as_dict(), told)
    began = time.monotonic()
    trackers = _online_or_offline((run, "online"), lambda run, mode: NodeTracker(run, mode, rank))
else:
    world = World(0, 1, 0, 1, torch.device("cpu"))
    began = time.monotonic()
    trackers, _ = open_trackers(config, RunFolder(folder), told, None, world)
print(f"began after {time.monotonic() - began:.1f} seconds", flush=True)
for images_seen in (10, 20, 30):
    for tracker in trackers:
        tracker.log({"step": images_seen // 10, "images_seen": images_seen, "loss/generator": images_seen / 7})
if len(sys.argv) > 4:
    sys.stdin.readline()  # until the service has gone
for tracker in trackers:
    tracker.close("done")
print(f"ended after {time.monotonic() - began:.1f} seconds", flush=True)
"""


def track(folder: Path, url: str, rank: int = 0) -> Finished:
    folder.mkdir(exist_ok=True)
    command = [sys.executable, "-c", PROGRAM, str(folder), "10", str(rank)]
    return run_command(command, {"WANDB_BASE_URL": url, "WANDB_API_KEY": KEY, "NO_PROXY": "*"}, timeout=90)


def began_after(result: Finished) -> float:
    assert result.returncode == 0, result
    found = re.search(r"began after ([\d.]+) seconds", result.stdout)
    assert found, result
    return float(found[1])


def assert_recorded_offline(folder: Path, job_type: str = "train") -> None:
    """What `wandb sync` would send: the run with its settings, every row, and its end."""
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(file)
    assert run_record(records).job_type == job_type
    assert any(update.key == "data" for update in run_record(records).config.update)
    if job_type == "train":
        assert [step["images_seen"] for step in logged(records)] == [10, 20, 30]
        assert summary(records)["status"] == "done"


@pytest.fixture(scope="module")
def not_tls() -> Iterator[str]:
    """The address of a server that speaks no TLS where TLS is asked for."""
    with wandb_server() as server:
        yield server.url.replace("http:", "https:")


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.parametrize(
    ("status", "why"),
    [
        (401, "does not accept the API key"),
        (403, "does not accept the API key"),
        (500, "answers with status 500"),
        (None, "the connection was cut"),
        ("silent", "no answer within 8 seconds"),
    ],
)
def test_a_service_that_misbehaves_costs_seconds_and_nothing_of_the_run(
    tmp_path: Path, status: int | str | None, why: str
) -> None:
    with wandb_server(status) as server:
        result = track(tmp_path / "run", server.url)
    assert began_after(result) < 20
    lines = [line for line in result.stderr.splitlines() if "W&B" in line]
    assert len(lines) == 1 and why in lines[0] and "wandb sync" in lines[0], result
    assert_recorded_offline(tmp_path / "run")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://127.0.0.1:{port}", "connection refused"),
        ("http://no-such-host.invalid", "its name is not known here"),
        ("tls", "no secure connection"),
    ],
)
def test_an_address_that_leads_nowhere_costs_seconds_and_nothing_of_the_run(
    tmp_path: Path, not_tls: str, url: str, why: str
) -> None:
    result = track(tmp_path / "run", not_tls if url == "tls" else url.format(port=free_port()))
    assert began_after(result) < 20
    (line,) = [line for line in result.stderr.splitlines() if "W&B" in line]
    assert why in line
    assert_recorded_offline(tmp_path / "run")


def test_a_service_that_knows_the_user_but_starts_no_run_costs_seconds_too(tmp_path: Path) -> None:
    with wandb_server("viewer only") as server:
        result = track(tmp_path / "run", server.url)
    assert began_after(result) < 20
    (line,) = [line for line in result.stderr.splitlines() if "W&B" in line and "waiting" not in line]
    assert "recording offline" in line
    assert_recorded_offline(tmp_path / "run")


def test_a_further_node_that_cannot_reach_the_service_records_its_own_run(tmp_path: Path) -> None:
    result = track(tmp_path / "run", f"http://127.0.0.1:{free_port()}", rank=1)
    assert began_after(result) < 20
    assert "recording offline" in result.stderr
    assert_recorded_offline(tmp_path / "run", "node")


@pytest.mark.parametrize("status", [500, None, "silent"])
def test_a_service_that_goes_away_later_delays_the_end_by_its_limit_and_loses_nothing(
    tmp_path: Path, status: int | str | None
) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    command = [sys.executable, "-c", PROGRAM, str(folder), "3", "0", "wait"]
    with wandb_server() as server, started(command, {"WANDB_BASE_URL": server.url, "WANDB_API_KEY": KEY}) as process:
        wait_until(lambda: any("file_stream" in asked for asked in server.asked), process)
        server.status = status
        output, errors = process.communicate("gone\n", timeout=60)
    assert process.returncode == 0, errors
    (line,) = [line for line in errors.splitlines() if "W&B did not take" in line]
    assert f"wandb sync {folder}/wandb/run-" in line
    (file,) = folder.glob("wandb/run-*/*.wandb")
    records = wandb_records(file)
    assert [step["images_seen"] for step in logged(records)] == [10, 20, 30]
    assert summary(records)["status"] == "done"
    assert float(output.split("ended after ")[1].split()[0]) < 30


def test_a_whole_run_without_a_network_is_recorded_from_its_first_row_on(shards: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    settings = ("--data.shards", shards, "--run.dir", folder, "--track.wandb", "auto", "--train.total_images", 256)
    environment = {"WANDB_BASE_URL": f"http://127.0.0.1:{free_port()}", "WANDB_API_KEY": KEY}
    words = (*SMALL, *settings, "--data.global_batch_size", 32, "--track.every_images", 32)
    result = run_train(2, *words, env=environment)
    assert result.returncode == 0, result
    (line,) = [line for line in result.stderr.splitlines() if "W&B" in line]
    assert "connection refused" in line
    (file,) = folder.glob("wandb/offline-run-*/*.wandb")
    records = wandb_records(file)
    assert [step["images_seen"] for step in logged(records) if "loss/generator" in step] == list(range(32, 257, 32))
    assert summary(records)["status"] == read_status(folder)["status"] == "done"
