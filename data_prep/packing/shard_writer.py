"""Writes one shard: a tar, its index, and the record that lets an interrupted preparation go on."""

from __future__ import annotations

import hashlib
import io
import json
import struct
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.packing.plain_jpeg import is_plain
from data_prep.packing.plan import PlannedShard
from data_prep.packing.shard_tar import ShardTar
from data_prep.sources.celeba_images import DamagedImage, ImageFolder, ImageZip, SourceImage
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import atomic_write
from dcgan_dist.data import shard_format, shard_index
from dcgan_dist.data.shard_format import Shard, ShardError, index_name

if TYPE_CHECKING:
    from PIL.Image import Image

REPORT_EVERY = 64  # images between two messages of a worker; it also notices then that the command is gone


@dataclass(frozen=True)
class Task:
    """What a worker needs to know beside the shards."""

    out: Path
    images: ImageFolder | ImageZip
    decode_check: bool
    skip_damaged: bool


@dataclass(frozen=True)
class Record:
    """What became of one shard; kept beside the tar until the manifest is written."""

    digest: str
    """Of what was planned."""
    decode_checked: bool
    skipped: tuple[str, ...]
    rewritten: int
    """Images that are stored as PNG because decoders would not agree about the source's bytes."""
    smallest_image: tuple[int, int]
    largest_image: tuple[int, int]
    shard: Shard

    def save(self, path: Path) -> None:
        """Writes it, not synced: a record that a power cut spoils only costs writing its shard again."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Record | None:
        """The record, or None where there is none that can be read."""
        try:
            content = json.loads(path.read_text())
            for name in ("skipped", "smallest_image", "largest_image"):
                content[name] = tuple(content[name])
            return Record(**content | {"shard": Shard(**content["shard"])})
        except (OSError, ValueError, LookupError, TypeError):
            return None


def record_path(out: Path, tar_name: str) -> Path:
    """Where the record of a tar lies."""
    return out / f".{tar_name}.record"


def prepare_shard(task: Task, planned: PlannedShard, report: Callable[[int], None]) -> Record:
    """Writes a tar, its index and its record, unless they are there and every byte is right."""
    path = record_path(task.out, planned.file)
    annotations = planned.annotations()
    digest = planned.digest(annotations)
    if (record := Record.load(path)) and record.digest == digest and _still_right(task, record, planned):
        report(len(planned.images))
        return record
    record = write_shard(task, planned, annotations, digest, report)
    record.save(path)
    return record


def _still_right(task: Task, record: Record, planned: PlannedShard) -> bool:
    """Whether the shard is what would be written now: whole, and made of images of the sizes that the source has."""
    if (record.skipped and not task.skip_damaged) or (task.decode_check and not record.decode_checked):
        return False
    try:
        shard_format.check_shard(task.out, record.shard)
    except ShardError:
        return False
    return fits_source(task.out, record.shard, task.images, planned)


def fits_source(out: Path, shard: Shard, images: ImageFolder | ImageZip, planned: PlannedShard) -> bool:
    """Whether the images in a shard are in the source, and those stored as they are have the sizes they have there."""
    sizes = {image.name[:-4]: images.size(image) for image in planned.images}
    packed = shard_index.read_index(out / index_name(shard.file))
    return all(
        sample.key in sizes and (sample.image_extension != "jpg" or sample.image_size == sizes[sample.key])
        for sample in packed
    )


def write_shard(
    task: Task, planned: PlannedShard, annotations: list[bytes], digest: str, report: Callable[[int], None]
) -> Record:
    """Writes a tar and its index. Raises UserError naming an image that is damaged, and OSError."""
    skipped: list[str] = []
    sizes: list[tuple[int, int]] = []
    rewritten = 0
    with atomic_write(task.out / planned.file) as file:
        tar = ShardTar(file)
        for number, (image, annotation) in enumerate(zip(planned.images, annotations, strict=True), start=1):
            try:
                extension, content, size = read_checked(task, image)
            except DamagedImage as problem:
                _refuse_unless_skipping(task, image.name, problem)
                skipped.append(image.name)
            else:
                sizes.append(size)
                rewritten += extension != "jpg"
                tar.add(image.name[:-4], extension, content, annotation)
            if number % REPORT_EVERY == 0:
                report(REPORT_EVERY)
        if not sizes:
            raise UserError(f"every image meant for {planned.file} is damaged, so there is nothing to put into it")
        sha256 = tar.close()
        report(len(planned.images) % REPORT_EVERY)
    index = shard_index.index_text(tar.listing).encode()
    with atomic_write(task.out / index_name(planned.file)) as file:
        file.write(index)
    shard = Shard(planned.file, len(sizes), tar.size, sha256, hashlib.sha256(index).hexdigest())
    smallest, largest = extreme(min, sizes), extreme(max, sizes)
    return Record(digest, task.decode_check, tuple(skipped), rewritten, smallest, largest, shard)


def _refuse_unless_skipping(task: Task, name: str, problem: DamagedImage) -> None:
    if not task.skip_damaged:
        advice = "put a good copy in its place, or leave such images out with --skip-damaged"
        raise UserError(f"{name} in {task.images.path} is damaged ({problem}); {advice}")


def extreme(choose: Callable[..., int], sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest (or largest) height and width, each by itself."""
    return choose(height for height, _ in sizes), choose(width for _, width in sizes)


def read_checked(task: Task, image: SourceImage) -> tuple[str, bytes, tuple[int, int]]:
    """What is stored of an image: extension, bytes, and (height, width). Raises DamagedImage if it cannot be decoded.

    A JPEG that every decoder reads alike is stored as it is, decoded only if that is to be checked. Another one is
    stored as PNG, with the pixels that Pillow makes of it.
    """
    jpeg = task.images.read(image)
    if jpeg[:3] != b"\xff\xd8\xff":
        raise DamagedImage("it is not a JPEG" if jpeg else "it is empty")
    if not is_plain(jpeg):
        return "png", *_as_png(jpeg)
    size = jpeg_size(jpeg)
    if task.decode_check:
        _decode(jpeg, thoroughly=False)
    return "jpg", jpeg, size


def _as_png(jpeg: bytes) -> tuple[bytes, tuple[int, int]]:
    """The image as PNG, and its (height, width)."""
    try:
        image, png = _decode(jpeg, thoroughly=True), io.BytesIO()
    except DamagedImage:
        jpeg_size(jpeg)  # if the header is the reason, it says so
        raise
    image.save(png, "PNG")
    return png.getvalue(), (image.height, image.width)


def _decode(jpeg: bytes, thoroughly: bool) -> Image:
    """The image in RGB; if not `thoroughly`, every bit is read but an eighth of the size painted: a third faster."""
    from PIL import Image

    try:
        opened = Image.open(io.BytesIO(jpeg), formats=("JPEG",))
        if not thoroughly:
            opened.draft(opened.mode, (1, 1))
            opened.load()
            return opened
        return opened.convert("RGB")
    except Exception as error:  # Pillow's plugins raise half a dozen kinds
        raise DamagedImage(str(error)) from None


def jpeg_size(jpeg: bytes) -> tuple[int, int]:
    """(height, width) from the frame header, many times as fast as opening it with Pillow. Raises DamagedImage."""
    position = 2
    while position + 9 <= len(jpeg) and jpeg[position] == 0xFF:
        marker, length, _, height, width = struct.unpack_from(">xBHBHH", jpeg, position)
        if marker == 0xFF:  # a fill byte
            position += 1
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if height and width:
                return height, width
            break
        else:
            position += 2 + length
    raise DamagedImage("its JPEG header is cut off or broken")
