"""Tars that lie where their owner put them: adopted again, and checked."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

import pytest

from data_prep import verify
from data_prep.adopt import adopt
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.shard_format import read_manifest
from tests.shard_folders import jpeg, write_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of one tar that was adopted."""
    write_shards(tmp_path / "tars", {"one": jpeg(50, 40)})
    (tmp_path / "tars" / "manifest.json").unlink()
    adopt(tmp_path / "tars", decode=True, workers=1)
    return tmp_path / "tars"


def test_a_tar_that_was_added_since_is_named_and_not_passed_over(folder: Path) -> None:
    write_shards(folder.parent / "more", {"two": jpeg(40, 50)})
    (folder.parent / "more" / "celeba-all-000000.tar").rename(folder / "more.tar")
    with pytest.raises(UserError) as error:
        adopt(folder, decode=True, workers=1)
    assert str(error.value).startswith(f"{folder / 'more.tar'}: ")
    assert f"remove {folder / 'manifest.json'}" in str(error.value)
    (folder / "manifest.json").unlink()
    adopt(folder, decode=True, workers=1)
    assert read_manifest(folder).samples == 2
    adopt(folder, decode=True, workers=1)


def test_a_folder_that_another_command_writes_to_is_named_by_the_option_that_there_is(folder: Path) -> None:
    (folder / "manifest.json").unlink()
    handle = os.open(folder, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    with pytest.raises(UserError, match=f"--source {folder}: another preparation is writing there"):
        adopt(folder, decode=True, workers=1)
    os.close(handle)


def test_verify_does_not_ask_to_remove_the_owners_tars(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tar,) = folder.glob("*.tar")
    (folder / "more.tar").write_bytes(tar.read_bytes())
    assert verify.verify(folder, decode=False, workers=1) == 1
    unlisted, last = capsys.readouterr().out.splitlines()
    assert "more.tar: is not in the manifest; remove it" in unlisted and last == f"{folder}: 1 problem"
    (folder / "more.tar").unlink()
    tar.write_bytes(tar.read_bytes()[:-512])
    assert verify.verify(folder, decode=False, workers=1) == 1
    advice = "put good copies of the named files in place, or prepare the images again in another folder"
    assert capsys.readouterr().out.splitlines()[-1] == f"{folder}: 1 problem; {advice}"
