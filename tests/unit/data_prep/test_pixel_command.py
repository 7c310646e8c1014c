"""The command that lists and removes files of pixels, and the others, which pass over them."""

from __future__ import annotations

import fcntl
from dataclasses import replace
from pathlib import Path

import pytest

from data_prep import pixels, verify
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.pixel_file import FOLDER, PixelSet, write_pixel_file
from dcgan_dist.data.shard_format import read_manifest
from tests.running import run_module
from tests.shard_folders import jpeg, write_shards


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Shards with the pixels of two sizes, one of shards that are gone, and what a killed run has left."""
    folder = tmp_path / "shards"
    write_shards(folder, {"one": jpeg(50, 40)})
    own = PixelSet("faces", "all", read_manifest(folder).fingerprint, 1, 32, "short_side", "pillow 1.0")
    for kept in (own, replace(own, size=64), replace(own, fingerprint="0" * 64)):
        list(write_pixel_file(folder / FOLDER / kept.file_name, kept, [memoryview(bytes(kept.pixel_bytes))]))
    (folder / FOLDER / f".{replace(own, size=128).file_name}.tmp").write_bytes(b"half")
    return folder


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / FOLDER).iterdir())


def said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *arguments: object) -> str:
    """What the command prints."""
    monkeypatch.setattr("sys.argv", ["pixels", *map(str, arguments)])
    pixels.main()
    return capsys.readouterr().out


def test_each_file_is_listed_with_its_size_and_what_it_belongs_to(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    head, *lines = said(capsys, monkeypatch, folder).splitlines()
    assert head.startswith(f"{folder / FOLDER}: 4 files of pixels, ")
    assert [line.split()[0] for line in lines] == names(folder)
    assert sum("of these shards" in line for line in lines) == 2
    (others,) = [line for line in lines if "of other shards" in line]
    assert "1 images of faces (all), 000000000000: crop short_side, 32 pixels, pillow 1.0" in others
    assert lines[0].endswith("unfinished: its run was killed")
    assert said(capsys, monkeypatch, folder / FOLDER).splitlines() == [head, *lines]
    assert len(names(folder)) == 4


def test_files_are_removed_by_name_or_all_and_one_being_written_is_left(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    unfinished, first, *rest = names(folder)
    said(capsys, monkeypatch, folder, "--remove", first)
    assert names(folder) == [unfinished, *rest]
    with (folder / FOLDER / unfinished).open("ab") as written:
        fcntl.flock(written, fcntl.LOCK_EX)
        assert f"{unfinished}: left, a run is writing it" in said(capsys, monkeypatch, folder, "--remove")
        assert names(folder) == [unfinished]
    assert "1 file of pixels, 0.00 GiB removed" in said(capsys, monkeypatch, folder, "--remove")
    assert names(folder) == []
    assert read_manifest(folder), "only pixels are removed"


def test_a_name_or_folder_that_is_not_there_is_refused_and_nothing_removed(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(UserError, match=r"--remove manifest\.json: no such file of pixels"):
        said(capsys, monkeypatch, folder, "--remove", names(folder)[0], "manifest.json")
    with pytest.raises(UserError, match="/nowhere: cannot be read as a folder"):
        said(capsys, monkeypatch, "/nowhere", "--remove")
    assert len(names(folder)) == 4


def test_the_other_commands_pass_over_the_pixels(folder: Path, tmp_path: Path) -> None:
    assert verify.verify(folder, decode=True, workers=1) == 0
    assert "already a folder of shards" in run_module("data_prep.adopt", "--source", folder).stdout
    (folder / "manifest.json").unlink()
    assert "adopted, 1 images in 1 tars" in run_module("data_prep.adopt", "--source", folder).stdout
    packed = run_module("data_prep.images", "--source", folder, "--out", tmp_path / "again")
    assert packed.returncode == 0, packed
    assert read_manifest(tmp_path / "again").samples == 1
    assert len(names(folder)) == 4
