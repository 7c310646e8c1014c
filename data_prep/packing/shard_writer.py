"""Writes one shard: a tar, its index, and the record that lets an interrupted preparation go on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Protocol

from data_prep.packing.engines import Engine
from data_prep.packing.stored_form import Form, store
from data_prep.packing.tar_writer import TarWriter
from data_prep.sources.celeba_images import ImageFolder, ImageZip
from data_prep.sources.entries import DamagedImage, ImageSource
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import atomic_write, write_text
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.data import shard_format, shard_index
from dcgan_dist.data.shard_format import Shard, ShardError, index_name
from dcgan_dist.data.shard_index import Sample

DIGEST_BYTES = 16
"""Of the checksum that tells whether two images are the same: half a SHA-256."""


class AnyPlannedShard(Protocol):
    """What goes into one tar."""

    @property
    def file(self) -> str:
        """Name of the tar."""
        ...

    @property
    def source(self) -> ImageSource | ImageFolder | ImageZip:
        """What the images are read from."""
        ...

    @property
    def images(self) -> Sequence[Any]:
        """In the order of the tar, each with a name."""
        ...

    @property
    def keys(self) -> Sequence[str]:
        """What each is called in the tar, without extension."""
        ...

    def annotations(self) -> list[bytes]:
        """The JSON of each image."""
        ...

    def digest(self, annotations: list[bytes]) -> str:
        """Checksum of all this."""
        ...

    def fits(self, packed: list[Sample]) -> bool:
        """Whether these samples were made of these images, as far as their sizes tell."""
        ...


class AnyPlan(Protocol):
    """Everything that the bytes of the shards follow from."""

    @property
    def dataset(self) -> str: ...

    @property
    def split(self) -> str: ...

    @property
    def seed(self) -> int: ...

    @property
    def samples(self) -> int: ...

    @cached_property
    def shards(self) -> dict[str, slice]: ...

    def shard(self, tar_name: str) -> AnyPlannedShard:
        """What goes into a tar."""
        ...


@dataclass(frozen=True)
class Task:
    """What a worker needs to know beside the shards."""

    out: Path
    form: Form
    skip_damaged: bool
    smallest_side: int = 0
    """Images with fewer pixels at their shorter side are left out."""


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
    """Without samples where every image is left out: then there is no tar."""
    contents: str = ""
    """The first half of each image's SHA-256 in the source, in the order of the tar, in hexadecimal digits."""
    small: tuple[str, ...] = ()
    """Images that are left out because they are small."""

    def save(self, path: Path) -> None:
        """Writes it, not synced: a record that a power cut spoils only costs writing its shard again."""
        path.write_text(json.dumps(asdict(self)))

    @staticmethod
    def load(path: Path) -> Record | None:
        """The record, or None where there is none that can be read."""
        try:
            content = json.loads(path.read_text())
            for name in ("skipped", "smallest_image", "largest_image", "small"):
                content[name] = tuple(content.get(name, ()))
            content["contents"] = "".join(content.get("contents", ()))  # older versions kept a list, or none
            return Record(**content | {"shard": Shard(**content["shard"])})
        except (OSError, ValueError, LookupError, TypeError):
            return None


def record_path(out: Path, tar_name: str) -> Path:
    """Where the record of a tar lies."""
    return out / f".{tar_name}.record"


def write_shards(task: Task, plan: AnyPlan, run: Engine) -> list[Record]:
    """Writes what is missing of the shards; the records of all, in their order. Raises UserError and OSError."""
    records: dict[str, Record] = {}
    try:
        with progress_bar("packing", plan.samples) as advance:
            for record in run(partial(prepare_shard, task), map(plan.shard, plan.shards)):
                records[record.shard.file] = record
                advance(record.shard.samples + len(record.skipped))
    finally:
        remove_half_written(task.out, plan)  # by nodes that died
    return [records[tar_name] for tar_name in plan.shards]


def remove_half_written(out: Path, plan: AnyPlan) -> None:
    """Removes what a killed preparation, or a killed part of one, left half-written."""
    own = {shard_format.MANIFEST_NAME, *plan.shards, *map(index_name, plan.shards)}
    for path in out.glob(".*.tmp"):
        if path.name[1:].rsplit(".", 2)[0] in own:  # see files.temporary_name
            path.unlink(missing_ok=True)


def prepare_shard(task: Task, planned: AnyPlannedShard) -> Record:
    """Writes a tar, its index and its record, unless they are there and every byte is right."""
    path = record_path(task.out, planned.file)
    annotations = planned.annotations()
    digest = planned.digest(annotations)
    if (record := Record.load(path)) and record.digest == digest and _still_right(task, record, planned):
        return record
    record = write_shard(task, planned, annotations, digest)
    record.save(path)
    return record


def _still_right(task: Task, record: Record, planned: AnyPlannedShard) -> bool:
    """Whether the shard is what would be written now: whole, and made of images of the sizes that the source has."""
    if (set(record.skipped) - set(record.small) and not task.skip_damaged) or (
        task.form.decode_check and not record.decode_checked
    ):
        return False
    if not record.shard.samples:
        return not (task.out / record.shard.file).exists()
    try:
        shard_format.check_shard(task.out, record.shard)
    except ShardError:
        return False
    return planned.fits(shard_index.read_index(task.out / index_name(record.shard.file)))


def write_shard(task: Task, planned: AnyPlannedShard, annotations: list[bytes], digest: str) -> Record:
    """Writes a tar and its index, or neither if all images are left out.

    Raises UserError naming an image that is damaged, and OSError.
    """
    skipped: list[str] = []
    small: list[str] = []
    contents: list[str] = []
    sizes: list[tuple[int, int]] = []
    rewritten = 0
    path = task.out / planned.file
    with atomic_write(path) as file, TarWriter(file) as tar:
        for image, key, annotation in zip(planned.images, planned.keys, annotations, strict=True):
            try:
                content = planned.source.read(image)
                stored = store(content, task.form)
            except DamagedImage as problem:
                _refuse_unless_skipping(task, planned, image.name, problem)
                skipped.append(image.name)
                continue
            if min(stored.height, stored.width) < task.smallest_side:
                small.append(image.name)
                continue
            contents.append(hashlib.sha256(content).hexdigest()[: 2 * DIGEST_BYTES])
            sizes.append((stored.height, stored.width))
            rewritten += stored.is_rewritten
            tar.add(f"{key}.{stored.extension}", stored.content)
            tar.add(f"{key}.json", annotation)
    index = path.with_suffix(".idx")
    left_out, checked = tuple(skipped + small), task.form.decode_check
    if not sizes:
        for useless in (path, index):  # the tar is empty; the index is of an earlier try that looked less closely
            useless.unlink(missing_ok=True)
        no_tar = Shard(planned.file, 0, 0, "", "")
        return Record(digest, checked, left_out, 0, (0, 0), (0, 0), no_tar, small=tuple(small))
    write_text(index, shard_index.index_text(tar.members))
    sha256, index_sha256 = shard_format.file_sha256(path), shard_format.file_sha256(index)
    shard = Shard(planned.file, len(sizes), path.stat().st_size, sha256, index_sha256)
    extremes = extreme(min, sizes), extreme(max, sizes)
    return Record(digest, checked, left_out, rewritten, *extremes, shard, "".join(contents), tuple(small))


def _refuse_unless_skipping(task: Task, planned: AnyPlannedShard, name: str, problem: DamagedImage) -> None:
    if not task.skip_damaged:
        advice = "put a good copy in its place, or leave such images out with --skip-damaged"
        raise UserError(f"{name} in {planned.source.path} is damaged ({problem}); {advice}")


def extreme(choose: Callable[..., int], sizes: list[tuple[int, int]]) -> tuple[int, int]:
    """The smallest (or largest) height and width, each by itself."""
    return choose(height for height, _ in sizes), choose(width for _, width in sizes)
