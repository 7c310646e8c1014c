"""`--engine ray`: the same folder, packed by Ray on this machine or by the nodes of a cluster, also where one dies."""

from __future__ import annotations

import contextlib
import hashlib
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from data_prep.packing.ray_engine import Driver, on_a_node, packages
from dcgan_dist.base.errors import UserError
from tests.running import run_command, run_module, started, user_errors, wait_until
from tests.shard_folders import jpeg

SHARDS = 32


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A node with one CPU, to which others may be added."""
    pytest.importorskip("ray", reason="ray is not installed; not every Python has a wheel of it")
    from ray.cluster_utils import Cluster

    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 300, "health_check_timeout_ms": 2000}
    head = {"num_cpus": 1, "include_dashboard": False, "_system_config": soon}  # a dead node is noticed soon
    cluster = Cluster(initialize_head=True, head_node_args=head)
    yield cluster
    cluster.shutdown()


def words(source: Path, out: Path, *options: object) -> list[str]:
    return [str(word) for word in ("--source", source, "--out", out, *options)]


def command(faces: Path, out: Path, *options: object) -> list[str]:
    """Shards that take a while each."""
    some = words(faces / "img_align_celeba", out, "--size", 160, "--samples-per-shard", 256 // SHARDS, *options)
    return [sys.executable, "-m", "data_prep.images", *some]


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir() if path.is_file()}


def children(process: int) -> dict[int, str]:
    """The processes that a process has started, and what they call themselves."""
    found = {}
    for child in map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split()):
        with contextlib.suppress(OSError):
            found[child] = Path(f"/proc/{child}/cmdline").read_bytes().decode().strip("\0")
    return found


def freeze_a_job(node: Any) -> list[int]:
    """Stops a worker of a node in the middle of a job, and returns its number, if one was in one."""
    (raylet,) = node.all_processes["raylet"]
    for worker, title in children(raylet.process.pid).items():
        if title.startswith("ray::on_a_node"):
            os.kill(worker, signal.SIGSTOP)
            if children(raylet.process.pid)[worker].startswith("ray::on_a_node"):
                return [worker]
            os.kill(worker, signal.SIGCONT)
    return []


def test_two_nodes_one_of_which_dies_in_the_middle_of_a_shard_pack_the_same_bytes(
    cluster: Any, faces: Path, tmp_path: Path
) -> None:
    assert run_command(command(faces, tmp_path / "processes")).returncode == 0
    second = cluster.add_node(num_cpus=1)
    out = tmp_path / "ray"
    frozen: list[int] = []

    def halfway() -> bool:
        if len(list(out.glob(".*.record"))) > SHARDS // 4:
            frozen.extend(freeze_a_job(second))
        return bool(frozen)

    with started(command(faces, out, "--engine", "ray", "--ray-address", cluster.address)) as process:
        wait_until(halfway, process)
        cluster.remove_node(second, allow_graceful=False)  # its connections stay, as after a power cut
        output, errors = process.communicate(timeout=100)
    with contextlib.suppress(ProcessLookupError):
        os.kill(frozen[0], signal.SIGKILL)
    assert process.returncode == 0, errors
    assert "Ray: 2 CPUs on 2 nodes" in errors  # that one was lost is told only if there is work left when it is noticed
    assert checksums(out) == checksums(tmp_path / "processes")
    assert f"256 images of split all into {SHARDS} shards" in output


def test_without_an_address_ray_runs_here_and_ends_with_the_command(faces: Path, shards: Path, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="ray is not installed; not every Python has a wheel of it")
    options = ("--split", "all", "--samples-per-shard", 64, "--engine", "ray", "--workers", 2)
    with started([sys.executable, "-m", "data_prep.celeba", *words(faces, tmp_path / "out", *options)]) as process:
        wait_until(lambda: "raylet" in str(children(process.pid).values()), process)
        raylets = [pid for pid, title in children(process.pid).items() if "raylet" in title]
        assert process.wait(timeout=100) == 0, process.communicate()
    assert checksums(tmp_path / "out") == checksums(shards)
    assert raylets and not any(Path(f"/proc/{pid}").exists() for pid in raylets)


def test_from_a_url_to_a_url_ray_packs_what_processes_pack_also_where_a_tar_loses_all_its_images(
    tmp_path: Path,
) -> None:
    pytest.importorskip("ray", reason="ray is not installed; not every Python has a wheel of it")
    source, out, here = tmp_path / "pets", tmp_path / "remote" / "pets", tmp_path / "here"
    source.mkdir()
    for name, cut in (("whole", None), ("cut", -200), ("other", None)):
        (source / f"{name}.jpg").write_bytes(jpeg(40, 50)[:cut])
    options = ("--samples-per-shard", 1, "--skip-damaged", "--workers", 2)
    assert run_module("data_prep.images", *words(source, here, *options)).returncode == 0
    by_url = ("--source", source.as_uri(), "--out", out.as_uri(), *options, "--engine", "ray")
    command = [sys.executable, "-m", "data_prep.images", *map(str, by_url)]
    result = run_command(command, env={"XDG_CACHE_HOME": str(tmp_path / "cache")})
    assert result.returncode == 0, result
    assert len(list(out.glob("*.tar"))) == 2
    assert checksums(out) == checksums(here)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--ray-address", "localhost:1"), "--ray-address localhost:1: is for --engine ray"),
        (("--engine", "ray", "--ray-address", "localhost:1"), "--ray-address localhost:1: cannot be reached"),
        (("--engine", "ray", "--ray-address", "here"), "--ray-address here: is no HOST:PORT"),
    ],
)
def test_an_address_that_leads_nowhere_is_one_line(
    options: tuple[str, ...], said: str, faces: Path, tmp_path: Path
) -> None:
    if "--engine" in options:
        pytest.importorskip("ray", reason="ray is not installed")
    result = run_module("data_prep.celeba", *words(faces, tmp_path / "out", *options))
    assert result.returncode == 2, result
    assert [line.startswith(f"error: {said}") for line in user_errors(result)] == [True], result
    assert not (tmp_path / "out").exists() or not list((tmp_path / "out").iterdir())


def test_a_machine_without_ray_is_told_how_to_get_it(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "ray.py").write_text("raise ImportError")
    command = [sys.executable, "-m", "data_prep.celeba", *words(faces, tmp_path / "out", "--engine", "ray")]
    result = run_command(command, env={"PYTHONPATH": str(tmp_path)})
    assert result.returncode == 2 and "pip install -c constraints.txt -e '.[ray]'" in result.stderr.splitlines()[-1], (
        result
    )


def test_a_node_that_would_write_elsewhere_or_otherwise_refuses(tmp_path: Path) -> None:
    here = Driver(packages(), tmp_path / "token")
    with pytest.raises(UserError, match="must be on a file system that all nodes share"):
        on_a_node(str, 1, here)
    here.token.touch()
    assert on_a_node(str, 1, here) == "1"
    with pytest.raises(UserError, match=r"Pillow .* and this one 1\.0"):
        on_a_node(str, 1, here._replace(packages={"Pillow": "1.0"}))
