"""The two decoders give the same pixels, name what they cannot decode, and feed cache and stream alike."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import Crop, DataConfig
from dcgan_dist.data.crop import crop_box, needed_size
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode, decode_with_pillow
from dcgan_dist.data.loader import BatchPlan, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import flips
from dcgan_dist.data.shard_format import ShardError, read_manifest
from dcgan_dist.distributed.world import World
from tests.given import batches_from
from tests.shard_folders import jpeg, write_shards

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
CROPS: tuple[Crop, ...] = get_args(Crop)
DECODERS: tuple[Literal["dali", "pillow"], ...] = ("dali", "pillow")

Decode = Callable[..., Iterator[Tensor]]
DECODE: dict[str, Decode] = {"dali": decode_with_dali, "pillow": decode_with_pillow}

TURNED = Image.Exif()
TURNED[0x0112] = 6  # orientation: "turn me by 90 degrees", which neither decoder must obey


def decoded(decoder: str, shards: MappedShards, size: int, crop: Crop, batch: Sequence[int]) -> Tensor:
    return next(DECODE[decoder](shards, [batch], size=size, crop=crop, device=CPU, threads=2))


@pytest.fixture(scope="module")
def variety(tmp_path_factory: pytest.TempPathFactory) -> MappedShards:
    """JPEGs as they come: CelebA's size or about it, in every form that cameras and programs write."""
    jpegs = {
        "plain": jpeg(218, 178),
        "gray": jpeg(218, 178, "L", seed=1),
        "cmyk": jpeg(218, 178, "CMYK", seed=2),
        "progressive": jpeg(218, 178, seed=3, progressive=True),
        "full_chroma": jpeg(218, 178, seed=4, subsampling="4:4:4"),
        "half_chroma": jpeg(218, 178, seed=5, subsampling="4:2:2"),
        "odd": jpeg(219, 181, seed=6),
        "odd_progressive_gray": jpeg(221, 193, "L", seed=7, progressive=True),
        "wide": jpeg(201, 333, seed=8),
        "coarse": jpeg(218, 178, seed=9, quality=25),
        "turned": jpeg(218, 178, seed=10, exif=TURNED),
        "restarts": jpeg(218, 178, seed=11, restart_marker_blocks=4),
    }
    return write_shards(tmp_path_factory.mktemp("variety") / "shards", jpegs, (201, 178))


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("crop", CROPS)
def test_both_decoders_give_the_same_pixels(variety: MappedShards, crop: Crop, size: int) -> None:
    dali, pillow = (decoded(decoder, variety, size, crop, range(len(variety))).int() for decoder in DECODERS)
    assert dali.shape == (len(variety), size, size, 3)
    for sample, difference in enumerate((dali - pillow).abs().flatten(1).amax(1).tolist()):
        assert difference <= 1, variety.name(sample)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("crop", [crop for crop in CROPS if needed_size(crop) == (1, 1)])
def test_both_decoders_enlarge_tiny_images_alike(tmp_path: Path, crop: Crop, size: int) -> None:
    jpegs = {f"{height}x{width}": jpeg(height, width) for height, width in ((1, 1), (3, 2), (16, 9), (31, 64))}
    shards = write_shards(tmp_path / "tiny", jpegs)
    dali, pillow = (decoded(decoder, shards, size, crop, range(len(shards))).int() for decoder in DECODERS)
    for sample, difference in enumerate((dali - pillow).abs().flatten(1).amax(1).tolist()):
        assert difference <= 1, shards.name(sample)


@pytest.mark.parametrize("decoder", DECODERS)
def test_drawn_faces_come_out_in_the_order_asked_for(shards: Path, decoder: str) -> None:
    mapped = MappedShards(shards, read_manifest(shards))
    ids = [200, 3, 3, 77]
    found = decoded(decoder, mapped, 64, "short_side", ids).int()
    expected = np.stack([decode(mapped.jpeg(sample).tobytes(), 64, "short_side") for sample in ids])
    assert np.abs(found.numpy() - expected).max() <= 1
    assert not torch.equal(found[0], found[1])
    assert list(DECODE[decoder](mapped, [], size=64, crop="short_side", device=CPU, threads=2)) == []


def test_the_crops_of_celeba_are_the_published_ones() -> None:
    height, width = 218, 178
    assert crop_box("short_side", height, width) == (20, 0, 198, 178)
    assert crop_box("center_108", height, width) == (55, 35, 163, 143)
    assert crop_box("center_140", height, width) == (39, 19, 179, 159)
    assert crop_box("center_148", height, width) == (35, 15, 183, 163)
    assert crop_box("center_160", height, width) == (29, 9, 189, 169)
    assert crop_box("pggan_128", height, width) == (57, 25, 185, 153)
    assert crop_box("squash", height, width) == (0, 0, 218, 178)


def test_a_crop_without_resizing_copies_the_pixels() -> None:
    content = jpeg(218, 178, seed=12)
    with Image.open(io.BytesIO(content)) as image:
        expected = np.asarray(image)[57:185, 25:153]
    assert np.array_equal(decode(content, 128, "pggan_128"), expected)


# --- what cannot be decoded -------------------------------------------------------------------------------------------


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def without_head(content: bytes) -> bytes:
    return bytes(400) + content[400:]


def no_jpeg(content: bytes) -> bytes:
    return b"this is text and no picture at all" * 20


@pytest.mark.parametrize("damage", [cut, without_head, no_jpeg])
@pytest.mark.parametrize("decoder", DECODERS)
def test_an_image_that_cannot_be_decoded_is_named(
    tmp_path: Path, decoder: str, damage: Callable[[bytes], bytes]
) -> None:
    jpegs = {f"{number:06d}": jpeg(218, 178, seed=number) for number in range(6)}
    jpegs["000004"] = damage(jpegs["000004"])
    shards = write_shards(tmp_path / "damaged", jpegs)
    batches = DECODE[decoder](shards, [[0, 1], [2, 3], [5, 4]], size=32, crop="short_side", device=CPU, threads=2)
    with pytest.raises(ShardError) as caught:
        list(batches)
    assert f"{shards.folder}/celeba-all-000000.tar, image 000004: cannot be decoded" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("crop", [crop for crop in CROPS if needed_size(crop) != (1, 1)])
def test_a_crop_larger_than_the_smallest_image_is_refused(tmp_path: Path, crop: Crop) -> None:
    needed = needed_size(crop)
    fitting = write_shards(tmp_path / "fitting", {"one": jpeg(*needed)}, needed)
    open_decoder(DataConfig(crop=crop), fitting, ALONE, cores=1)
    small = write_shards(tmp_path / "small", {"one": jpeg(needed[0], needed[1] - 1)}, (needed[0], needed[1] - 1))
    with pytest.raises(UserError, match=rf"data\.crop = {crop}.* use --data\.crop short_side"):
        open_decoder(DataConfig(crop=crop), small, ALONE, cores=1)


# --- batches ----------------------------------------------------------------------------------------------------------


def first_batches(folder: Path, config: DataConfig, count: int, images_seen: int = 0) -> list[Tensor]:
    mapped = MappedShards(folder, read_manifest(folder))
    source = open_source(config, mapped, open_decoder(config, mapped, ALONE, cores=2), ALONE, lambda done: None)
    plan = BatchPlan.of(config, 0, len(mapped), 48, ALONE)
    return [batch.clone() for batch in itertools.islice(batches_from(source, plan, images_seen, CPU), count)]


@pytest.mark.parametrize("decoder", DECODERS)
def test_cached_and_streamed_batches_are_the_same(shards: Path, decoder: Literal["dali", "pillow"]) -> None:
    """Eleven batches of 48 reach twice over the end of an epoch of 256."""
    cached, streamed = (
        first_batches(shards, DataConfig(image_size=32, flip=True, decoder=decoder, loader=loader), 11)
        for loader in ("cache", "stream")
    )
    for one, other in zip(cached, streamed, strict=True):
        assert one.shape == (48, 3, 32, 32)
        assert one.dtype == torch.uint8
        assert one.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(one, other)


@pytest.mark.parametrize("loader", ["cache", "stream"])
def test_batches_can_be_had_from_any_position(shards: Path, loader: Literal["cache", "stream"]) -> None:
    config = DataConfig(image_size=32, flip=True, decoder="pillow", loader=loader)
    straight = first_batches(shards, config, 9)
    later = first_batches(shards, config, 3, images_seen=6 * 48)
    assert all(torch.equal(one, other) for one, other in zip(straight[6:], later, strict=True))


def test_flips_mirror_the_chosen_images_and_no_others(shards: Path) -> None:
    plain, flipped = (
        first_batches(shards, DataConfig(image_size=32, flip=flip, decoder="pillow"), 1)[0] for flip in (False, True)
    )
    chosen = flips(0, 0, 48, CPU)
    assert 0 < chosen.sum() < 48
    for before, after, mirrored in zip(plain, flipped, chosen.tolist(), strict=True):
        assert torch.equal(after, before.flip(2) if mirrored else before)
