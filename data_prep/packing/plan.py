"""Which image goes into which tar: a function of the source, the split, the seed and the shard size alone."""

from __future__ import annotations

import hashlib
import json
import operator
import sys
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from data_prep.packing.order import shuffled
from data_prep.sources.annotations import ANNOTATION_FILES, SPLITS, Table, read_table
from data_prep.sources.celeba import WHERE_TO_GET_IT, Source
from data_prep.sources.celeba_images import ImageFolder, ImageZip, SourceImage
from data_prep.sources.packed_table import PackedTable
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.shard_index import Sample


class PlannedShard(NamedTuple):
    """What of CelebA goes into one tar."""

    file: str
    """Name of the tar."""
    source: ImageFolder | ImageZip
    images: list[SourceImage]
    """In the order of the tar."""
    tables: list[Table]
    """The annotations of these images."""
    settings: str
    """What was asked for."""

    @property
    def keys(self) -> list[str]:
        """What each image is called in the tar, without extension."""
        return [image.name[:-4] for image in self.images]

    def annotations(self) -> list[bytes]:
        """The JSON of each image, read from the annotation files. Raises UserError for a malformed row, and OSError."""
        parts = [table.as_json() for table in self.tables]
        return [
            b'{"file":"%b",%b}' % (image.name.encode(), b",".join(values))
            for image, *values in zip(self.images, *parts, strict=True)
        ]

    def digest(self, annotations: list[bytes]) -> str:
        """Checksum of all this: the settings, and of every image the name and the annotations."""
        return hashlib.sha256(b"\n".join([self.settings.encode(), *annotations])).hexdigest()

    def fits(self, packed: list[Sample]) -> bool:
        """Whether these samples' images are in the source, and those stored as they are have the sizes they have there.

        The digest does not say so: it is of names.
        """
        sizes = {image.name[:-4]: self.source.size(image) for image in self.images}
        return all(
            sample.key in sizes and (sample.image_extension != "jpg" or sample.image_size == sizes[sample.key])
            for sample in packed
        )


@dataclass(frozen=True)
class Plan:
    """Everything that the bytes of the shards follow from."""

    dataset: str
    source: ImageFolder | ImageZip
    split: str
    seed: int
    samples_per_shard: int
    images: PackedTable[SourceImage]
    """All of the source, sorted by name."""
    tables: list[Table]
    """The annotations, each with a row for every one of the images."""
    order: array[int]
    """Which of the images are the split's, shuffled."""

    @property
    def samples(self) -> int:
        """Images in all shards together."""
        return len(self.order)

    @cached_property
    def shards(self) -> dict[str, slice]:
        """For each tar its part of `order`."""
        starts = range(0, self.samples, self.samples_per_shard)
        return {
            f"celeba-{self.split}-{number:06d}.tar": slice(start, start + self.samples_per_shard)
            for number, start in enumerate(starts)
        }

    def shard(self, tar_name: str) -> PlannedShard:
        """What goes into a tar."""
        numbers = self.order[self.shards[tar_name]]
        images = [self.images[number] for number in numbers]
        settings = json.dumps([self.dataset, self.split, self.seed, self.samples_per_shard])
        return PlannedShard(tar_name, self.source, images, [table.only(numbers) for table in self.tables], settings)


def plan_digest(shard_digests: Iterable[str]) -> str:
    """Checksum of the whole plan, of those of its shards in their order."""
    return hashlib.sha256("\n".join(shard_digests).encode()).hexdigest()


def make_plan(source: Source, split: str, samples_per_shard: int, seed: int) -> Plan:
    """Finds the annotations, chooses the split's images and shuffles them over the shards. Raises UserError."""
    images = source.list_images()
    tables = _read_tables(source, split, images)
    order = shuffled(len(images), seed) if split == "all" else _shuffled_split(tables, split, images, seed)
    return Plan(source.dataset, source.images, split, seed, samples_per_shard, images, tables, order)


def _read_tables(source: Source, split: str, images: PackedTable[SourceImage]) -> list[Table]:
    """The tables that there are, each with a row for every image. Raises UserError."""
    for part in ("attributes", "partition"):
        if part not in source.annotation_files and not (part == "partition" and split == "all"):
            inside = isinstance(source.images, ImageZip)
            advice = "; if it is in that zip, as in Kaggle's, unpack it first" if inside else f". {WHERE_TO_GET_IT}"
            raise UserError(f"{ANNOTATION_FILES[part]}.txt (or .csv) is missing beside {source.images.path}{advice}")
    for part, stem in ANNOTATION_FILES.items():
        if part not in source.annotation_files:
            print(f"warning: there is no {stem}.txt (or .csv), so the shards go without {part}", file=sys.stderr)
    tables = []
    for part, path in source.annotation_files.items():
        table = read_table(part, path)
        _check_complete(source, images, table)
        tables.append(table)
    return tables


def _check_complete(source: Source, images: PackedTable[SourceImage], table: Table) -> None:
    """Every image needs a row in a table and every row an image; UserError counts and names what is missing."""
    if len(table.places) == len(images) and all(map(operator.eq, table.names(), (image.name for image in images))):
        return
    listed, there = set(table.names()), {image.name for image in images}
    if without_image := sorted(listed - there):
        raise UserError(
            f"{source.images.path}: {table.file.name} lists {len(listed)} images, and {len(without_image)} of "
            f"them are missing, the first is {without_image[0]}; unpack or download the images again"
        )
    without_row = sorted(there - listed)
    raise UserError(
        f"{table.file}: has no row for {len(without_row)} of the {len(images)} images in "
        f"{source.images.path}, the first is {without_row[0]}; download it again"
    )


def _shuffled_split(tables: list[Table], split: str, images: PackedTable[SourceImage], seed: int) -> array[int]:
    """Which of the images belong to the split, in the order of the shards."""
    (partition,) = (table for table in tables if table.part == "partition")
    numbers, found = array("I"), set()
    for number, (_, *words) in enumerate(partition.rows()):
        value = b" ".join(words).decode(errors="replace")
        if value not in SPLITS:
            raise UserError(f"{partition.file}: {images[number].name} is in split {value!r}, expected 0, 1 or 2")
        found.add(SPLITS[value])
        if SPLITS[value] == split:
            numbers.append(number)
    if not numbers:
        counted = ", ".join(sorted(found))
        raise UserError(f"{partition.file}: no image belongs to the split {split!r} (there is: {counted})")
    return array("I", map(numbers.__getitem__, shuffled(len(numbers), seed)))
