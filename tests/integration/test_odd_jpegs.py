"""JPEGs about which decoders disagree: settled while shards are made, and one line if one turns up in training."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.packing.plain_jpeg import is_plain
from data_prep.sources.celeba_images import DamagedImage
from dcgan_dist.data.decode_dali import is_readable
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from tests.odd_jpegs import coloured, disagreement, ordinary, prepared, trial, with_strays
from tests.running import SMALL, run_module, run_train, user_errors
from tests.shard_folders import jpeg, write_shards

STRAYS = {
    f"{len(stray)} before {name}": with_strays(jpeg(218, 178, seed=3), marker, stray)
    for name, marker in (("DQT", 0xDB), ("SOF", 0xC0), ("DHT", 0xC4), ("SOS", 0xDA))
    for stray in (b"\0", b"\x12\x34\x56\x78", b"\xff")
}
COLOURS = [
    (mode, jfif, adobe, ids)
    for mode in ("L", "RGB", "CMYK")
    for jfif in (False, True)
    for adobe in (None, 0, 1, 2)
    for ids in (b"\1\2\3\4", b"\0\1\2\3", b"RGBA")
]


def pixels_of(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


@pytest.mark.parametrize("content", ordinary())
def test_ordinary_jpegs_are_stored_byte_for_byte(content: bytes) -> None:
    assert is_plain(content)
    assert prepared(content) == ("jpg", content)


@pytest.mark.parametrize("name", STRAYS)
def test_a_jpeg_with_stray_bytes_is_stored_as_png_with_the_same_pixels(name: str) -> None:
    extension, stored = prepared(STRAYS[name])
    assert extension == "png"
    assert np.array_equal(pixels_of(stored), pixels_of(STRAYS[name]))


def test_all_colour_layouts_look_the_same_to_both_decoders(tmp_path: Path) -> None:
    stored, as_they_are = {}, 0
    for number, (mode, jfif, adobe, ids) in enumerate(COLOURS):
        source = coloured(mode, jfif, adobe, ids, seed=number)
        extension, content = prepared(source)
        stored[f"{number:06d}"] = content
        as_they_are += extension == "jpg"
        assert np.array_equal(pixels_of(content), pixels_of(source)), (mode, jfif, adobe, ids)
    assert disagreement(tmp_path / "shards", stored) <= 1
    assert 0 < as_they_are < len(COLOURS)


@pytest.mark.parametrize("mode", ["RGB", "CMYK"])
def test_files_that_do_not_say_what_their_colours_are_go_as_png(mode: str) -> None:
    assert prepared(coloured(mode, False, None, b"abcd"))[0] == "png"
    assert prepared(coloured(mode, True, 1 if mode == "CMYK" else 0, b"\1\2\3\4"))[0] == "png"


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"\xff\xd8\xff", jpeg(64, 64)[:300], jpeg(64, 64)[:-300]])
def test_what_no_decoder_can_read_is_refused(content: bytes) -> None:
    with pytest.raises(DamagedImage):
        prepared(content)


def test_whatever_preparation_accepts_of_changed_jpegs_both_decoders_read_alike(tmp_path: Path) -> None:
    """CONTRIBUTING.md names the command that tries 20,000."""
    outcome = trial(1_000, seed=1, folder=tmp_path)
    assert outcome.problems == []
    assert outcome.largest <= 1
    assert outcome.accepted > 300
    assert 0 < outcome.as_png < outcome.accepted


def test_what_both_decoders_are_given_dali_can_find_its_way_through(tmp_path: Path) -> None:
    """An image whose head it cannot read makes it crash now and then: no such image may reach it."""
    for content in (*ordinary(), prepared(STRAYS["4 before DHT"])[1]):
        assert is_readable(memoryview(content))
    for name, content in STRAYS.items():
        assert not is_readable(memoryview(content)), name
    for content in (b"", b"text" * 99, jpeg(64, 64)[:100], bytes(400) + jpeg(64, 64)[400:]):
        assert not is_readable(memoryview(content))


def test_odd_images_are_counted_packed_verified_and_trained_on(faces: Path, tmp_path: Path) -> None:
    source = shutil.copytree(faces, tmp_path / "faces")
    odd = [*STRAYS.values(), coloured("CMYK", False, None, b"\1\2\3\4"), coloured("RGB", False, 0, b"RGB")]
    for number, content in enumerate(odd, start=1):
        (source / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(content)
    packed = tmp_path / "packed"
    command = ("data_prep.celeba", "--source", source, "--out", packed, "--split", "all", "--samples-per-shard", 64)
    result = run_module(*command)
    assert result.returncode == 0, result
    assert f"{len(odd)} images are JPEGs that decoders read in different ways; they are stored as PNG" in result.stdout
    assert "already done" in run_module(*command).stdout
    assert run_module("data_prep.verify", packed, "--decode").returncode == 0
    assert len(MappedShards(packed, read_manifest(packed))) == 256
    settings = ("--data.shards", packed, "--train.total_images", 64, "--data.global_batch_size", 32)
    for decoder in ("dali", "pillow"):
        trained = run_train(1, *SMALL, *settings, "--data.decoder", decoder, "--run.dir", tmp_path / decoder)
        assert trained.returncode == 0, trained


@pytest.mark.parametrize("decoder", ["dali", "pillow"])
@pytest.mark.parametrize("loader", ["cache", "stream"])
@pytest.mark.parametrize("ranks", [1, 2])
def test_one_that_turns_up_in_training_ends_it_with_a_line_that_names_it(
    tmp_path: Path, decoder: str, loader: str, ranks: int
) -> None:
    images = {f"{number:06d}": jpeg(96, 96, seed=number) for number in range(64)}
    # Pillow passes over stray bytes, so for it the image must be cut.
    images["000037"] = images["000037"][:900] if decoder == "pillow" else with_strays(images["000037"], 0xC4, b"\0")
    write_shards(tmp_path / "shards", images, smallest=(96, 96))
    settings = ("--data.shards", tmp_path / "shards", "--data.decoder", decoder, "--data.loader", loader)
    words = ("--run.dir", tmp_path / "run", "--data.global_batch_size", 16, "--train.total_images", 640)
    result = run_train(ranks, *SMALL, *settings, *words)
    assert result.returncode == (2 if ranks == 1 else 1), result  # torchrun's own status is 1
    errors = user_errors(result)
    assert len(errors) == 1, result
    assert "celeba-all-000000.tar, image 000037: cannot be decoded" in errors[0]
    assert "Segmentation" not in result.stderr and "Signal" not in result.stderr
