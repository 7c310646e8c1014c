"""Files of every mode, format, size and name, through a folder, a zip and a tar: none is lost, none comes twice."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from tests.integration.test_images import prepare, stored
from tests.running import run_module

COUNT = 500
FORMATS = {
    "jpg": ("JPEG", ("RGB", "L", "CMYK")),
    "png": ("PNG", ("RGB", "L", "RGBA", "LA", "P", "1", "I;16")),
    "webp": ("WEBP", ("RGB", "RGBA")),
    "bmp": ("BMP", ("RGB", "L", "P", "1")),
    "tif": ("TIFF", ("RGB", "L", "RGBA", "CMYK", "F", "I;16", "LAB", "YCbCr")),
    "gif": ("GIF", ("L", "P")),
}
SIZES = (
    (1, 1),
    (1, 300),
    (2, 3),
    (17, 23),
    (64, 64),
    (200, 90),
    (2000, 10),
    (10, 2000),
    (20_000, 10),
    (10, 20_000),
)  # WebP has at most 16,383
ODD_NAMES = (
    *(" leading", "trailing ", "two  blanks", "quo'te", 'double"quote', "new\nline", "tab\tulator", "ünïcödé", "猫"),
    *("-dash", "percent%20", "back\\slash", "dots.in.it", "semi;colon", "$HOME", "*star*", "a" * 240),
)


def odd_file(number: int) -> tuple[str, bytes]:
    """A name, every seventh as long as can be and some alike but for case, and an image."""
    chance = random.Random(number - (number % 11 == 1))
    extension = chance.choice(list(FORMATS))
    kind, modes = FORMATS[extension]
    mode, (height, width) = chance.choice(modes), chance.choice(SIZES if kind != "WEBP" else SIZES[:-2])
    pixels = np.random.default_rng(number).integers(0, 256, (height, width, 4), dtype=np.uint8)
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257)
    elif mode == "F":
        image = Image.fromarray(pixels[..., 0].astype(np.float32) / 255)
    elif mode == "LAB":
        image = Image.frombytes("LAB", (width, height), pixels[..., :3].tobytes())
    else:
        image = Image.fromarray(pixels, "RGBA").convert(mode)
    content = io.BytesIO()
    image.save(content, kind)
    ending = f"-{number}.{extension.upper() if number % 5 == 0 else extension}"
    if number % 11 in (0, 1):
        name, ending = ("CASE" if number % 11 else "case"), f"-{number // 11}.{extension}"
    elif number % 7 == 0:
        name = "n" * (255 - len(ending))
    else:
        name = chance.choice(ODD_NAMES) if number % 3 == 0 else "image"
    return name + ending, content.getvalue()


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return dict(odd_file(number) for number in range(COUNT))


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_none_is_lost_none_comes_twice_and_decoders_agree(kind: str, files: dict[str, bytes], tmp_path: Path) -> None:
    if kind == "folder":
        source = tmp_path / "source"
        source.mkdir()
        for name, content in files.items():
            (source / name).write_bytes(content)
    elif kind == "zip":
        source = tmp_path / "source.zip"
        with zipfile.ZipFile(source, "w") as archive:
            for name, content in files.items():
                archive.writestr(name, content)
    else:
        source = tmp_path / "source.tar"
        with tarfile.open(source, "w") as tar:
            for name, content in files.items():
                member = tarfile.TarInfo(name.replace(".in.it", "-in-it"))  # a key ends at the first dot
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    result = prepare(source, tmp_path / "out")
    assert result.returncode == 0, result
    assert "Traceback" not in result.stderr
    assert len(stored(tmp_path / "out")) == COUNT  # which fails if a name comes twice
    assert run_module("data_prep.verify", tmp_path / "out", "--decode").returncode == 0
    shards = MappedShards(tmp_path / "out", read_manifest(tmp_path / "out"))
    batches = [range(start, min(start + 50, COUNT)) for start in range(0, COUNT, 50)]
    cpu = torch.device("cpu")
    for ours, dalis in zip(
        decode_with_pillow(shards, batches, 32, "short_side", cpu, 1),
        decode_with_dali(shards, batches, 32, "short_side", cpu, 1),
        strict=True,
    ):
        assert (ours.int() - dalis.int()).abs().max() <= 1
