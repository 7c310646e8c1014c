"""Preparation where images are left out, down to tars that lose all of theirs."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from data_prep import images, verify
from data_prep.sources.image_files import FolderOfImages
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from tests.shard_folders import jpeg

SKIPPING = ("--skip-damaged", "--filter", "min_size=16")


def broken() -> bytes:
    """A JPEG of which only decoding tells that its Huffman table makes no sense."""
    content = bytearray(jpeg(40, 40))
    table = content.index(b"\xff\xc4")
    content[table + 5 : table + 21] = b"\xff" * 16
    return bytes(content)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Four images, of which one is damaged and one is small."""
    folder = tmp_path / "pets"
    folder.mkdir()
    contents = {"broken": broken(), "tiny": jpeg(8, 8), "one": jpeg(40, 50), "other": jpeg(50, 40)}
    for name, content in contents.items():
        (folder / f"{name}.jpg").write_bytes(content)
    return folder


@pytest.fixture
def prepare(source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Packs the images one to a tar; what the command prints."""

    def run(out: Path, *options: object, workers: int = 1) -> str:
        given = ("--source", source, "--out", out, "--samples-per-shard", 1, "--workers", workers, *options)
        monkeypatch.setattr("sys.argv", ["images", *map(str, given)])
        images.main()
        return capsys.readouterr().out

    return run


def interrupt(patch: pytest.MonkeyPatch, prepare: Callable[..., str], out: Path, *options: object) -> None:
    """Prepares up to the manifest, which is not written."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with patch.context() as changed, pytest.raises(KeyboardInterrupt):
        changed.setattr(images, "finish", stop)
        prepare(out, *options)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_tar_without_images_is_left_out_and_the_rest_is_finished(
    prepare: Callable[..., str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert "done, 2 images" in prepare(out, *SKIPPING)
    manifest = read_manifest(out)
    assert manifest.skipped == ("broken.jpg", "tiny.jpg")
    assert manifest.smallest_image == (40, 40)
    files = {shard.file for shard in manifest.shards}
    assert len(files) == 2 and set(contents(out)) == files | {f"{name[:-4]}.idx" for name in files} | {"manifest.json"}
    assert len(MappedShards(out, manifest)) == 2
    assert verify.verify(out, decode=True, workers=1) == 0
    assert "all right, 2 images in 2 shards, 2 images left out" in capsys.readouterr().out
    assert "already done, 2 images in 2 shards" in prepare(out, *SKIPPING)
    prepare(tmp_path / "by two", *SKIPPING, workers=2)
    assert contents(tmp_path / "by two") == contents(out)


def test_an_interrupted_preparation_goes_on_without_reading_left_out_images_again(
    prepare: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "straight", *SKIPPING)
    out = tmp_path / "out"
    interrupt(monkeypatch, prepare, out, *SKIPPING)
    monkeypatch.setattr(FolderOfImages, "read", lambda *_: pytest.fail("an image is read again"))
    prepare(out, *SKIPPING)
    assert contents(out) == contents(tmp_path / "straight")


def test_a_tar_that_was_packed_unchecked_is_removed_where_a_check_finds_no_sound_image(
    prepare: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    prepare(tmp_path / "straight", *SKIPPING)
    out = tmp_path / "out"
    interrupt(monkeypatch, prepare, out, *SKIPPING, "--no-decode-check")
    assert len(list(out.glob("*.tar"))) == 3
    prepare(out, *SKIPPING)
    assert contents(out) == contents(tmp_path / "straight")


def test_nothing_but_left_out_images_is_one_line_and_leaves_the_folder_free(
    prepare: Callable[..., str], tmp_path: Path
) -> None:
    out = tmp_path / "out"
    with pytest.raises(UserError) as error:
        prepare(out, "--skip-damaged", "--filter", "min_size=100")
    assert "all 4 images are left out (1 damaged, 3 small)" in str(error.value)
    assert "a smaller --filter" in str(error.value) and "\n" not in str(error.value)
    assert contents(out) == {}
    assert "done, 2 images" in prepare(out, *SKIPPING)


def test_a_png_that_is_cut_off_is_a_damaged_image_as_any_other(
    prepare: Callable[..., str], source: Path, tmp_path: Path
) -> None:
    content = io.BytesIO()
    Image.open(source / "one.jpg").save(content, "PNG")
    (source / "cut.png").write_bytes(content.getvalue()[:-200])
    (source / "broken.jpg").unlink()
    with pytest.raises(UserError, match=r"^cut.png in .* is damaged \(.*truncated\); .*--skip-damaged"):
        prepare(tmp_path / "out")
    prepare(tmp_path / "out", "--skip-damaged")
    assert read_manifest(tmp_path / "out").skipped == ("cut.png",)
