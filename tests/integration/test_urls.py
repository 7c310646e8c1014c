"""Training from, and preparing to, URLs: real servers on the loopback address that fail all the time."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import EQUIVALENCE, GLOBAL_BATCH, STEPS
from tests.running import (
    Finished,
    assert_same_tensors,
    checkpoints,
    free_port,
    kill_tree,
    load_checkpoint,
    metric_rows,
    read_status,
    run_module,
    run_train,
    started,
    train_command,
    wait_until,
)
from tests.url_server import (
    FAULTS,
    BadServer,
    folder_app,
    put_into_bucket,
    s3_app,
    s3_environment,
    serving,
)

LIMIT_GIB = 0.0016  # of 2.8 MiB: two tars of four, and the indices


@pytest.fixture
def local_run(equivalent_run: Callable[[int], Path]) -> Path:
    """The run on two ranks from the local folder."""
    return equivalent_run(2)


@pytest.fixture
def server(shards: Path) -> Iterator[BadServer]:
    """A plain server of the shards that spoils every second request for a tar."""
    with serving(folder_app(shards.parent)) as server:
        server.spoil = lambda number: FAULTS[number // 2 % len(FAULTS)] if number % 2 else ""
        yield server


def url_of(server: BadServer, shards: Path) -> str:
    return f"http://127.0.0.1:{server.port}/{shards.name}"


def assert_same_run(one: Path, other: Path) -> None:
    left, right = (load_checkpoint(checkpoints(folder)[-1]) for folder in (one, other))
    assert left["images_seen"] == right["images_seen"] == STEPS * GLOBAL_BATCH
    for part in ("generator", "discriminator", "ema", "optimizers"):
        assert_same_tensors(left[part], right[part], part)


class Watched:
    """The most bytes that a folder has held, looked at all the time."""

    def __init__(self, folder: Path) -> None:
        self.most = 0
        self._folder, self._over = folder, threading.Event()
        threading.Thread(target=self._look, daemon=True).start()

    def _look(self) -> None:
        while not self._over.wait(0.01):
            sizes = []
            for path in self._folder.rglob("*"):
                try:
                    sizes.append(path.stat().st_size)
                except FileNotFoundError:
                    continue
            self.most = max(self.most, sum(sizes))

    def stop(self) -> int:
        self._over.set()
        return self.most


@pytest.mark.parametrize("kind", ["http", "s3"])
def test_a_run_from_a_bad_server_killed_and_resumed_within_a_limit_ends_in_the_bits_of_the_local_one(
    kind: str, local_run: Path, shards: Path, server: BadServer, tmp_path: Path
) -> None:
    with serving(s3_app() if kind == "s3" else folder_app(shards.parent)) as answering:
        url = put_into_bucket(answering, shards, "photos") if kind == "s3" else url_of(answering, shards)
        answering.spoil = server.spoil
        env = s3_environment(answering)
        run, cache = tmp_path / "run", tmp_path / "cache"
        limits = ("--data.loader", "stream", "--data.cache_dir", cache, "--data.cache_limit_gib", LIMIT_GIB)
        arguments = (*EQUIVALENCE, *limits, "--data.shards", url, "--run.dir", run)
        watched = Watched(cache)
        with started(train_command(2, *arguments), env) as process:
            wait_until(lambda: bool(checkpoints(run)), process)
            kill_tree(process)
        assert len(checkpoints(run)) == 1
        resumed = run_train(2, *arguments, env=env)
        assert resumed.returncode == 0, resumed
        assert_same_run(run, local_run)
        assert 1 << 20 < watched.stop() <= LIMIT_GIB * 2**30
        assert_no_secrets(resumed, run, env)


def assert_no_secrets(result: Finished, run: Path, env: dict[str, str]) -> None:
    texts = [result.stdout, result.stderr]
    texts += [
        path.read_text(errors="replace") for path in run.rglob("*") if path.suffix in (".yaml", ".json", ".jsonl")
    ]
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        assert not any(env[name] in text for text in texts)


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_ranks_fetch_every_tar_once_and_decode_it_as_it_arrives_on_one_node_or_two(
    nodes: int, local_run: Path, shards: Path, server: BadServer, tmp_path: Path
) -> None:
    """Nodes are told apart by the folders of their caches; each fetches what its own ranks decode."""
    arguments = (*EQUIVALENCE, "--data.shards", url_of(server, shards), "--run.dir", tmp_path / "run")
    port, caches = free_port(), [tmp_path / f"cache {node}" for node in range(nodes)]
    with contextlib.ExitStack() as stack:
        processes = []
        for node, cache in enumerate(caches):
            torchrun = ["--nnodes", nodes, "--node_rank", node, "--nproc_per_node", 2 // nodes, "--master_port", port]
            command = ["torch.distributed.run", *torchrun, "-m", "dcgan_dist.train", *arguments]
            environment = {"XDG_CACHE_HOME": str(cache)}
            processes.append(stack.enter_context(started([sys.executable, "-m", *map(str, command)], environment)))
        for process in processes:
            _, errors = process.communicate(timeout=120)
            assert process.returncode == 0, errors
    assert_same_run(tmp_path / "run", local_run)
    assert {name: count for name, count in server.requests.items() if ".tar" in name and "GET" in name} == {
        f"GET {path.name}": 1 for path in shards.glob("*.tar")
    }
    for cache in caches:
        (kept,) = cache.glob("dcgan_dist/shards-*")
        for path in kept.glob("[!.]*.*"):
            assert path.read_bytes() == (shards / path.name).read_bytes()


def test_a_server_gone_for_good_leaves_a_line_and_a_checkpoint(shards: Path, server: BadServer, tmp_path: Path) -> None:
    run, url = tmp_path / "run", url_of(server, shards)
    limits = ("--data.loader", "stream", "--data.cache_dir", tmp_path, "--data.cache_limit_gib", LIMIT_GIB)
    endless = ("--train.total_images", 10**6, "--checkpoint.every_images", 10**6, "--run.hang_timeout_seconds", 4)
    arguments = (
        *EQUIVALENCE,
        *limits,
        *endless,
        "--track.every_images",
        GLOBAL_BATCH,
        "--data.shards",
        url,
        "--run.dir",
        run,
    )
    with started(train_command(1, *arguments)) as process:
        wait_until(lambda: len(metric_rows(run)) > 2, process)
        server.stop()
        _, errors = process.communicate(timeout=90)
    assert process.returncode == 1, errors
    lines = errors.splitlines()
    assert sum("waiting for http" in line for line in lines) == 1
    (told,) = [line for line in lines if line.startswith("error:")]
    assert url in told and "no answer for" in told and "go on from the last checkpoint" in told
    status = read_status(run)
    assert (status["status"], len(checkpoints(run))) == ("failed", 1)
    assert load_checkpoint(checkpoints(run)[0])["images_seen"] == status["images_seen"] > 0


def test_images_are_prepared_from_a_url_to_a_url_and_checked_there(
    faces: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    source, out = faces / "img_align_celeba", tmp_path / "remote" / "photos"
    options = ("--samples-per-shard", 100, "--workers", 1, "--no-decode-check")
    here = run_module("data_prep.images", "--source", source, "--out", tmp_path / "local", *options)
    there = run_module("data_prep.images", "--source", source.as_uri(), "--out", out.as_uri(), *options)
    assert (here.returncode, there.returncode) == (0, 0), there
    assert {path.name: path.read_bytes() for path in out.iterdir()} == {
        path.name: path.read_bytes() for path in (tmp_path / "local").iterdir()
    }
    assert not any((tmp_path / "cache").rglob("*.tar"))
    assert "all right, 256 images" in run_module("data_prep.verify", out.as_uri(), "--workers", 1).stdout
    tar = sorted(out.glob("*.tar"))[1]
    tar.write_bytes(tar.read_bytes()[:-512])
    problems = run_module("data_prep.verify", out.as_uri(), "--workers", 1)
    assert problems.returncode == 1 and f"{tar.as_uri()}: truncated" in problems.stdout, problems
    again = run_module("data_prep.images", "--source", source.as_uri(), "--out", out.as_uri(), *options)
    assert again.returncode == 2 and "there are 256 images in 3 shards already" in again.stderr
