"""Images stored at the size of training are read without a decoder, and have the pixels that decoders find in them."""

from __future__ import annotations

import io
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.config import DataConfig
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.decode_plain import are_plain, decode_plain
from dcgan_dist.data.loader import open_decoder
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.plain_png import plain_png, plain_png_bytes, read_plain_png
from dcgan_dist.data.shard_format import ShardError
from dcgan_dist.distributed.world import World
from tests.shard_folders import write_shards

CPU = torch.device("cpu")


def noise(size: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (size, size, 3), dtype=np.uint8)


def shards_of(folder: Path, *files: bytes, size: int = 32) -> MappedShards:
    return write_shards(folder, {f"{n:06d}": file for n, file in enumerate(files)}, (size, size), (size, size))


def pixels_of(shards: MappedShards, size: int = 32) -> torch.Tensor:
    config = DataConfig(shards=str(shards.folder), image_size=size)
    return next(open_decoder(config, shards, World(0, 1, 0, 1, CPU), 2)([range(len(shards))]))


@pytest.mark.parametrize("size", [1, 32, 64, 147, 148, 256])
def test_a_plain_png_is_a_picture_for_every_program(size: int) -> None:
    """From 148 pixels on its rows are more than deflate stores in one block."""
    pixels = noise(size)
    content = plain_png(pixels)
    assert len(content) == plain_png_bytes(size)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), pixels)
    found = read_plain_png(np.frombuffer(content, np.uint8), size)
    assert found is not None
    assert np.array_equal(found, pixels)


@pytest.mark.parametrize("size", [32, 64, 256])
def test_all_decoders_find_the_same_pixels(tmp_path: Path, size: int) -> None:
    shards = shards_of(tmp_path, *(plain_png(noise(size, seed)) for seed in range(3)), size=size)
    expected = torch.from_numpy(np.stack([noise(size, seed) for seed in range(3)]))
    for decode in (decode_plain, decode_with_pillow, decode_with_dali):
        assert torch.equal(next(decode(shards, [range(3)], size, "short_side", CPU, 1)), expected), decode.__name__


def test_only_those_that_need_no_crop_and_no_resizing_are_read_so(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, plain_png(noise(128)), size=128)
    manifest, sizes = shards.manifest, shards.image_bytes
    assert are_plain(manifest, sizes, 128, "short_side")
    assert are_plain(manifest, sizes, 128, "squash")
    assert not are_plain(manifest, sizes, 64, "short_side")
    assert not are_plain(manifest, sizes, 128, "center_108")
    assert not are_plain(manifest, sizes + 1, 128, "short_side")


def test_a_file_that_only_has_the_length_of_one_is_decoded_as_ever(tmp_path: Path) -> None:
    """A compressed one, with a comment that makes it as long."""
    pixels = noise(32) // 32
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    other = buffer.getvalue()
    text = b"tEXt" + bytes(plain_png_bytes(32) - len(other) - 12)
    comment = (len(text) - 4).to_bytes(4, "big") + text + zlib.crc32(text).to_bytes(4, "big")
    shards = shards_of(tmp_path, plain_png(noise(32)), other[:33] + comment + other[33:])
    assert are_plain(shards.manifest, shards.image_bytes, 32, "short_side")
    assert torch.equal(pixels_of(shards), torch.from_numpy(np.stack([noise(32), pixels])))


def test_a_damaged_one_is_named(tmp_path: Path) -> None:
    content = plain_png(noise(32))
    damaged = content[:200] + bytes(40) + content[240:]
    shards = shards_of(tmp_path, content, damaged)
    with pytest.raises(ShardError, match=r"celeba-all-000000\.tar, image 000001: cannot be decoded"):
        pixels_of(shards)


def test_batches_come_in_the_order_asked_for(tmp_path: Path) -> None:
    shards = shards_of(tmp_path, *(plain_png(noise(32, seed)) for seed in range(5)))
    batches = [[4, 1], [0], [3, 3], [2], [1, 0]]
    found = list(decode_plain(shards, iter(batches), 32, "short_side", CPU, 1))
    for batch, images in zip(batches, found, strict=True):
        assert torch.equal(images, torch.from_numpy(np.stack([noise(32, seed) for seed in batch])))
    assert list(decode_plain(shards, [], 32, "short_side", CPU, 1)) == []
