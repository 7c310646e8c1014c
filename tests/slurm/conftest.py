"""A cluster for all tests here, and what they compare with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.running import SMALL, run_train
from tests.slurm.cluster import CannotStart, Cluster, install

TOTAL_IMAGES = 2560


@pytest.fixture(scope="session")
def two_nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """A cluster that is gone after the last test, with all that ran on it."""
    if reason := install():
        pytest.skip(reason)
    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    try:
        cluster.start()
        yield cluster
    except CannotStart as error:
        pytest.skip(str(error))
    finally:
        cluster.stop()
        assert not list(cluster.processes()), "processes outlived their cluster"


@pytest.fixture
def cluster(two_nodes: Cluster) -> Iterator[Cluster]:
    """The cluster without jobs, both nodes idle, also where the test before failed."""
    two_nodes.clear()
    yield two_nodes
    two_nodes.clear()


@pytest.fixture(scope="session")
def settings(shards: Path) -> tuple[str, ...]:
    """A small run over two ranks, long enough for a signal to find it in the middle."""
    return (
        *SMALL,
        *("--data.shards", str(shards)),
        *("--data.global_batch_size", "32"),
        *("--train.total_images", str(TOTAL_IMAGES)),
        *("--track.every_images", "64"),
        *("--checkpoint.every_images", "640"),
    )


@pytest.fixture(scope="session")
def undisturbed(settings: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run under one torchrun with two ranks, without SLURM."""
    folder = tmp_path_factory.mktemp("undisturbed") / "run"
    result = run_train(2, *settings, "--run.dir", folder)
    assert result.returncode == 0, result
    return folder
