"""The file of decoded pixels: the decoder's bits or none, whatever happens to it."""

from __future__ import annotations

import fcntl
import logging
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from dcgan_dist.base.errors import Interrupted, UserError
from dcgan_dist.config import DataConfig
from dcgan_dist.data import pixel_cache, pixel_file
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.loader import open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.pixel_cache import KeptPixels
from dcgan_dist.data.pixel_file import FOLDER, PixelSet, list_pixel_files, write_pixel_file
from dcgan_dist.data.shard_format import read_manifest
from tests.distributed.ranks.common import ALONE, CPU
from tests.shard_folders import jpeg, write_shards
from tests.unit.run.test_checkpoint import largest_file

CONFIG = DataConfig(image_size=32, decoder="pillow")
COUNT = 40


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """40 images in one shard, which no run has seen."""
    write_shards(tmp_path / "shards", {f"{number:06d}": jpeg(50, 40, seed=number) for number in range(COUNT)})
    return tmp_path / "shards"


@pytest.fixture
def expected(folder: Path) -> Tensor:
    """What the decoder makes of them."""
    shards = MappedShards(folder, read_manifest(folder))
    return next(decode_with_pillow(shards, [range(COUNT)], 32, "short_side", CPU, 1))


@pytest.fixture(autouse=True)
def all_lines(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)


def images(folder: Path, config: DataConfig = CONFIG, may_decode: bool = True) -> Tensor:
    """All images, as a run gets them."""
    config = replace(config, shards=str(folder))
    shards = MappedShards(folder, read_manifest(folder))
    decode = open_decoder(config, shards, ALONE, cores=1)
    source = open_source(config, shards, decode if may_decode else no_decoder, ALONE, lambda done: None)
    return next(source([range(COUNT)]))


def no_decoder(batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
    raise AssertionError("something was decoded")
    yield


def kept_files(folder: Path) -> list[Path]:
    """All that lies in the folder of pixels."""
    return sorted((folder / FOLDER).iterdir()) if (folder / FOLDER).exists() else []


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


# --- a sound file -----------------------------------------------------------------------------------------------------


def test_a_second_start_decodes_nothing_and_has_the_same_bits(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    assert torch.equal(images(folder), expected)
    (path,) = kept_files(folder)
    caplog.clear()
    assert torch.equal(images(folder, may_decode=False), expected)
    (line,) = [record.getMessage() for record in caplog.records]
    assert line.startswith(f"pixels from {path} in ")


def test_the_cache_on_a_cpu_is_the_file_itself(folder: Path) -> None:
    for _ in range(2):  # decoded, and from an earlier start
        source = open_source_of(folder)
        (path,) = kept_files(folder)
        assert str(path) in Path("/proc/self/maps").read_text()
        del source


def open_source_of(folder: Path) -> pixel_cache.PixelSource:
    shards = MappedShards(folder, read_manifest(folder))
    config = replace(CONFIG, shards=str(folder))
    return open_source(config, shards, open_decoder(config, shards, ALONE, cores=1), ALONE, lambda done: None)


def test_a_write_to_the_cache_never_reaches_the_file(folder: Path) -> None:
    images(folder)
    kept = KeptPixels(folder / FOLDER, found_set(folder), ALONE, lambda done: None)
    before = kept.path.read_bytes()
    kept.load().zero_()
    assert kept.path.read_bytes() == before


def found_set(folder: Path) -> PixelSet:
    (found,) = list_pixel_files(folder / FOLDER)
    assert found.pixels
    return found.pixels


@pytest.mark.parametrize("changes", [{"image_size": 64}, {"crop": "squash"}, {"decoder": "auto"}])
def test_what_gives_other_pixels_has_a_file_of_its_own(folder: Path, changes: dict[str, object]) -> None:
    pytest.importorskip("nvidia.dali")
    images(folder)
    other = replace(CONFIG, **changes)  # type: ignore[arg-type]
    assert torch.equal(images(folder, other), images(folder, replace(other, loader="stream")))
    assert len(kept_files(folder)) == 2


def test_other_shards_in_the_same_place_are_decoded_anew(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    images(folder)
    (old,) = kept_files(folder)
    write_shards(folder, {f"{number:06d}": jpeg(50, 40, seed=number + 1) for number in range(COUNT)})
    caplog.clear()
    assert torch.equal(images(folder)[:-1], expected[1:])
    assert len(kept_files(folder)) == 2, "the old file is for its owner to remove"
    (line,) = [record.getMessage() for record in caplog.records if "more file" in record.getMessage()]
    assert "1 more file(s)" in line
    assert f"python -m data_prep.pixels {folder / FOLDER} --remove {old.name}" in line


@pytest.mark.parametrize("changes", [{"keep_pixels": False}, {"loader": "stream"}])
def test_nothing_is_kept_where_that_is_not_wanted(folder: Path, expected: Tensor, changes: dict[str, object]) -> None:
    assert torch.equal(images(folder, replace(CONFIG, **changes)), expected)  # type: ignore[arg-type]
    assert not (folder / FOLDER).exists()


def test_the_pixels_can_be_kept_elsewhere(folder: Path, expected: Tensor, tmp_path: Path) -> None:
    config = replace(CONFIG, cache_dir=str(tmp_path / "of" / "this node"))
    for may_decode in (True, False):
        assert torch.equal(images(folder, config, may_decode), expected)
    assert not (folder / FOLDER).exists()
    assert len(list((tmp_path / "of" / "this node").iterdir())) == 1


# --- damage -----------------------------------------------------------------------------------------------------------


def flip_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def flip_bit_of_checksum(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1] + b"\x99")


def cut_off(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def pixels_of_others(path: Path) -> None:
    """A sound file under a wrong name."""
    pixels = replace(found_set(path.parents[1]), fingerprint="0" * 64)
    other = path.with_name(pixels.file_name)
    list(write_pixel_file(other, pixels, [memoryview(bytes(pixels.pixel_bytes))]))
    other.rename(path)


@pytest.mark.parametrize("damage", [flip_bit, flip_bit_of_checksum, cut_off, empty, zeros, pixels_of_others])
def test_a_damaged_file_is_told_in_a_line_and_replaced(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None]
) -> None:
    images(folder)
    (path,) = kept_files(folder)
    sound = path.read_bytes()
    damage(path)
    assert torch.equal(images(folder), expected)
    (line,) = warnings(caplog)
    assert line.startswith(f"{path}: ")
    assert "decoded again" in line
    assert kept_files(folder) == [path]
    assert path.read_bytes() == sound


def test_a_wrong_bit_in_any_block_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in (pixel_file, pixel_cache):
        monkeypatch.setattr(module, "PIECE_BYTES", 2 << 10)
    monkeypatch.setattr(pixel_file, "BLOCK_BYTES", 1 << 10)
    pixels = PixelSet("faces", "all", "0" * 64, 7, 16, "squash", "none")  # 5,376 bytes: blocks of 1,024 and one of 256
    cache = torch.randint(0, 256, (7, 16, 16, 3), dtype=torch.uint8)
    kept = KeptPixels(tmp_path, pixels, ALONE, lambda done: None)
    assert torch.equal(kept.keep(cache, []), cache)
    assert pixels.blocks == 6
    for block in range(6):
        sound = kept.path.read_bytes()
        content = bytearray(sound)
        content[4096 + 1024 * block + 100] ^= 1
        kept.path.write_bytes(content)
        (problem,) = kept.problems()
        assert f"the checksum of block {block} is wrong" in str(problem)
        kept.path.write_bytes(sound)
    assert kept.problems() == [None]


# --- disks and other processes ----------------------------------------------------------------------------------------


def test_a_full_disk_costs_the_file_and_nothing_else(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    with largest_file(50_000):
        assert torch.equal(images(folder), expected)
    (line,) = warnings(caplog)
    assert "the pixels are not kept" in line
    assert "training goes on from memory" in line
    assert kept_files(folder) == []


def test_room_is_left_to_checkpoints(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pixel_file, "BYTES_LEFT_FREE", shutil.disk_usage(folder).total)
    assert torch.equal(images(folder), expected)
    (line,) = warnings(caplog)
    assert "must stay free" in line
    assert kept_files(folder) == []


@pytest.mark.parametrize("place", ["/proc/pixels", "/etc/hostname/pixels"])
def test_a_folder_that_cannot_be_written_costs_the_file_and_nothing_else(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture, place: str
) -> None:
    assert torch.equal(images(folder, replace(CONFIG, cache_dir=place)), expected)
    (line,) = warnings(caplog)
    assert "training goes on from memory" in line


def test_a_damaged_file_that_cannot_be_replaced_is_not_used(
    folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture
) -> None:
    images(folder)
    (path,) = kept_files(folder)
    flip_bit(path)
    with largest_file(50_000):
        assert torch.equal(images(folder), expected)
    assert len(warnings(caplog)) == 2
    assert kept_files(folder) == [path]


def test_two_processes_never_write_one_file(folder: Path, expected: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    images(folder)
    (path,) = kept_files(folder)
    path.unlink()
    unfinished = path.with_name(f".{path.name}.tmp")
    with unfinished.open("wb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        other.write(b"half")
        other.flush()
        caplog.clear()
        assert torch.equal(images(folder), expected)
        assert not warnings(caplog)
        assert any("another process is writing it" in record.getMessage() for record in caplog.records)
        assert unfinished.read_bytes() == b"half"
        assert kept_files(folder) == [unfinished]
    assert torch.equal(images(folder), expected)  # that process has been killed: what it left is used again
    assert kept_files(folder) == [path]
    assert torch.equal(images(folder, may_decode=False), expected)


def test_a_request_to_stop_while_the_file_is_written_leaves_nothing(tmp_path: Path) -> None:
    calls: list[int] = []

    def stop_at_the_second(done: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise Interrupted("SIGTERM")

    pixels = PixelSet("faces", "all", "0" * 64, 4, 16, "squash", "none")
    kept = KeptPixels(tmp_path, pixels, ALONE, stop_at_the_second)
    with pytest.raises(Interrupted):
        kept.keep(torch.zeros(4, 16, 16, 3, dtype=torch.uint8), [])
    assert list(tmp_path.iterdir()) == []


def test_a_file_removed_at_the_last_moment_ends_in_a_line(folder: Path) -> None:
    images(folder)
    kept = KeptPixels(folder / FOLDER, found_set(folder), ALONE, lambda done: None)
    assert kept.problems() == [None]
    kept.path.unlink()
    with pytest.raises(UserError, match=r"\.pixels: No such file"):
        ALONE.together(kept.load)
