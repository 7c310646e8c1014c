"""What a run takes of its machine: its folder, and the memory it may use."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dcgan_dist.base.errors import UserError
from dcgan_dist.distributed.workforce import _free_in_control_groups, free_host_memory
from dcgan_dist.run.folder import RunFolder
from tests.running import ROOT

MIB = 2**20


def test_a_folder_in_which_a_process_trains_is_refused_until_that_process_ends(tmp_path: Path) -> None:
    program = "import sys, pathlib; from dcgan_dist.run.folder import RunFolder; "
    program += "RunFolder(pathlib.Path(sys.argv[1])).create('run: {}'); print('mine', flush=True); sys.stdin.read()"
    other = subprocess.Popen(
        [sys.executable, "-c", program, tmp_path], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout and other.stdout.readline() == b"mine\n"
    with pytest.raises(UserError, match="another process is training there"):
        RunFolder(tmp_path).create("run: {seed: 1}")
    assert (tmp_path / "config.yaml").read_text() == "run: {}"
    other.kill()
    other.wait()
    RunFolder(tmp_path).create("run: {seed: 1}")
    RunFolder(tmp_path).create("run: {seed: 2}")  # its own lock does not keep a process out
    assert (tmp_path / "config.yaml").read_text() == "run: {seed: 2}"


def test_free_memory_is_that_of_the_tightest_control_group(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("9:name=systemd:/\n0::/job/step\n")
    for group, limit, used, cached in (("job", 100, 70, 5), ("job/step", 90, 40, 0)):
        folder = tmp_path / "root" / group
        folder.mkdir(parents=True)
        (folder / "memory.max").write_text(f"{limit * MIB}\n")
        (folder / "memory.current").write_text(f"{used * MIB}\n")
        (folder / "memory.stat").write_text(f"anon 1\ninactive_file {cached * MIB}\nactive_file 7\n")
    assert sorted(_free_in_control_groups(tmp_path / "root", own)) == [35 * MIB, 50 * MIB]
    (tmp_path / "root" / "job" / "memory.max").write_text("max\n")
    assert list(_free_in_control_groups(tmp_path / "root", own)) == [50 * MIB]
    assert 0 < free_host_memory() < 2**50


def test_free_memory_is_known_under_control_groups_of_version_1_too(tmp_path: Path) -> None:
    own = tmp_path / "cgroup"
    own.write_text("11:cpu,cpuacct:/job\n9:memory:/job/step\n0::/\n")
    for group, limit, used, cached in (("", 2**43, 500, 0), ("job", 100, 70, 5), ("job/step", 2**43, 40, 0)):
        folder = tmp_path / "root" / "memory" / group
        folder.mkdir(parents=True)
        (folder / "memory.limit_in_bytes").write_text(f"{limit * MIB}\n")
        (folder / "memory.usage_in_bytes").write_text(f"{used * MIB}\n")
        (folder / "memory.stat").write_text(f"inactive_file 1\ntotal_inactive_file {cached * MIB}\n")
    assert min(_free_in_control_groups(tmp_path / "root", own)) == 35 * MIB
