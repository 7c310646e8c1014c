"""`sbatch slurm/prep.sh`: shards as a job."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcgan_dist.data.shard_format import read_manifest
from tests.running import run_module
from tests.slurm.cluster import Cluster


def test_an_array_of_jobs_packs_a_split_each(cluster: Cluster, faces: Path, tmp_path: Path) -> None:
    prepare = ("slurm/prep.sh", "--source", faces, "--out", tmp_path / "faces-SPLIT", "--split", "SPLIT")
    job = cluster.submit(tmp_path / "slurm-%a.log", *prepare, options=("--array=0-2",))
    check = cluster.submit(
        *(tmp_path / "check.log", "--wrap", f"cat {tmp_path}/faces-*/manifest.json"),
        options=(f"--dependency=afterok:{job.number}",),
    )
    assert check.wait() == "COMPLETED", check.log()
    samples = {split: read_manifest(tmp_path / f"faces-{split}").samples for split in ("train", "valid", "test")}
    assert sum(samples.values()) == 256
    assert all(run_module("data_prep.verify", tmp_path / f"faces-{split}").returncode == 0 for split in samples)


def test_two_nodes_pack_the_shards_that_one_machine_packs(
    cluster: Cluster, faces: Path, shards: Path, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="ray is not installed; not every Python has a wheel of it")
    options = ("--split", "all", "--samples-per-shard", 64)
    prepare = ("slurm/prep.sh", "--source", faces, "--out", tmp_path / "faces", *options)
    job = cluster.submit(tmp_path / "slurm.log", *prepare, options=("--nodes=2", "--cpus-per-task=1"))
    assert job.wait() == "COMPLETED", job.log()
    assert "Ray: " in job.log()
    assert {path.name: path.read_bytes() for path in (tmp_path / "faces").iterdir()} == {
        path.name: path.read_bytes() for path in shards.iterdir()
    }
    assert not Path(f"/tmp/ray-{job.number}").exists()
