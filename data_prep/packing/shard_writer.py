"""Writes one shard: a tar, its index, and the record that lets an interrupted preparation go on."""

from __future__ import annotations

import io
import json
import tarfile
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from data_prep.packing.plain_jpeg import is_plain
from data_prep.packing.plan import PlannedShard
from data_prep.sources.celeba_images import DamagedImage, ImageFolder, ImageZip, SourceImage
from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.files import atomic_write, write_text
from dcgan_dist.data import shard_format, shard_index
from dcgan_dist.data.shard_format import Shard, ShardError, index_name

if TYPE_CHECKING:
    from PIL.Image import Image


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


def prepare_shard(task: Task, planned: PlannedShard) -> Record:
    """Writes a tar, its index and its record, unless they are there and every byte is right."""
    path = record_path(task.out, planned.file)
    annotations = planned.annotations()
    digest = planned.digest(annotations)
    if (record := Record.load(path)) and record.digest == digest and _still_right(task, record, planned):
        return record
    record = write_shard(task, planned, annotations, digest)
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


def write_shard(task: Task, planned: PlannedShard, annotations: list[bytes], digest: str) -> Record:
    """Writes a tar and its index. Raises UserError naming an image that is damaged, and OSError."""
    skipped: list[str] = []
    sizes: list[tuple[int, int]] = []
    rewritten = 0
    path = task.out / planned.file
    with atomic_write(path) as file, tarfile.open(fileobj=file, mode="w|", format=tarfile.USTAR_FORMAT) as tar:
        for image, annotation in zip(planned.images, annotations, strict=True):
            try:
                extension, content, size = read_checked(task, image)
            except DamagedImage as problem:
                _refuse_unless_skipping(task, image.name, problem)
                skipped.append(image.name)
                continue
            sizes.append(size)
            rewritten += extension != "jpg"
            _add(tar, f"{image.name[:-4]}.{extension}", content)
            _add(tar, f"{image.name[:-4]}.json", annotation)
        if not sizes:
            raise UserError(f"every image meant for {planned.file} is damaged, so there is nothing to put into it")
    index = path.with_suffix(".idx")
    write_text(index, shard_index.index_lines(path))
    sha256, index_sha256 = shard_format.file_sha256(path), shard_format.file_sha256(index)
    shard = Shard(planned.file, len(sizes), path.stat().st_size, sha256, index_sha256)
    smallest, largest = extreme(min, sizes), extreme(max, sizes)
    return Record(digest, task.decode_check, tuple(skipped), rewritten, smallest, largest, shard)


def _add(tar: tarfile.TarFile, name: str, content: bytes) -> None:
    """Appends a member, byte for byte as webdataset's TarWriter does, which would import torch into every worker."""
    member = tarfile.TarInfo(name)
    member.size, member.mode, member.uname, member.gname = len(content), 0o444, "bigdata", "bigdata"
    tar.addfile(member, io.BytesIO(content))


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
    picture = _opened(jpeg)
    size = (picture.height, picture.width)
    if not is_plain(jpeg):
        png = io.BytesIO()
        _decoded(picture).save(png, "PNG")
        return "png", png.getvalue(), size
    if task.decode_check:
        picture.draft(picture.mode, (1, 1))  # every bit is read, but an eighth of the size painted: a third faster
        _decoded(picture)
    return "jpg", jpeg, size


def _opened(jpeg: bytes) -> Image:
    from PIL import Image

    try:
        with warnings.catch_warnings(action="ignore"):  # of EXIF that nobody reads
            return Image.open(io.BytesIO(jpeg), formats=("JPEG",))
    except Exception:  # Pillow's plugins raise half a dozen kinds
        raise DamagedImage("its JPEG header is cut off or broken") from None


def _decoded(picture: Image) -> Image:
    try:
        return picture.convert("RGB")
    except Exception as error:
        raise DamagedImage(in_one_line(error)) from None
