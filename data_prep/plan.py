"""Which image goes into which tar: a function of the source, the split, the seed and the shard size alone."""

from __future__ import annotations

import hashlib
import json
import random
import sys
from dataclasses import dataclass
from typing import NamedTuple

from data_prep.celeba_annotations import ANNOTATION_FILES, SPLITS, Table, json_template, read_table
from data_prep.celeba_images import SourceImage
from data_prep.celeba_source import WHERE_TO_GET_IT, Source
from dcgan_dist.errors import UserError


class PlannedSample(NamedTuple):
    """One image and its rows of annotations, one for each of the plan's `templates`."""

    image: SourceImage
    rows: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """Everything that the bytes of the shards follow from."""

    dataset: str
    split: str
    seed: int
    templates: dict[str, str]
    """For each kind of annotation its part of a sample's JSON, with places for the values."""
    shards: dict[str, tuple[PlannedSample, ...]]
    """For each tar its samples."""
    digest: str
    """Checksum over all of this, the images by name."""

    @property
    def samples(self) -> int:
        """Images in all shards together."""
        return sum(map(len, self.shards.values()))


def make_plan(source: Source, split: str, samples_per_shard: int, seed: int) -> Plan:
    """Reads the annotations, chooses the split's images and shuffles them over the shards. Raises UserError."""
    images = source.list_images()
    tables = _read_tables(source, split)
    _check_complete(source, images, tables)
    names = sorted(images if split == "all" else _names_of_split(tables["partition"], split))
    generator = random.Random(seed)
    names.sort(key=lambda _: generator.random())  # not `shuffle`, which Python may change from version to version
    rows = zip(*([table.rows[name] for name in names] for table in tables.values()), strict=True)
    samples = [PlannedSample(images[name], row) for name, row in zip(names, rows, strict=True)]
    starts = range(0, len(samples), samples_per_shard)
    templates = {part: json_template(part, table.columns) for part, table in tables.items()}
    identity = hashlib.sha256(json.dumps([source.dataset, split, seed, samples_per_shard, templates]).encode())
    for image, row in samples:
        identity.update(f"{image.name};{';'.join(row)}\n".encode())
    return Plan(
        dataset=source.dataset,
        split=split,
        seed=seed,
        templates=templates,
        shards={
            f"celeba-{split}-{number:06d}.tar": tuple(samples[start : start + samples_per_shard])
            for number, start in enumerate(starts)
        },
        digest=identity.hexdigest(),
    )


def _read_tables(source: Source, split: str) -> dict[str, Table]:
    for part in ("attributes", "partition"):
        if part not in source.annotation_files and not (part == "partition" and split == "all"):
            raise UserError(
                f"{ANNOTATION_FILES[part]}.txt (or .csv) is missing beside {source.images.path}. {WHERE_TO_GET_IT}"
            )
    for part, stem in ANNOTATION_FILES.items():
        if part not in source.annotation_files:
            print(f"warning: there is no {stem}.txt (or .csv), so the shards go without {part}", file=sys.stderr)
    return {part: read_table(part, path) for part, path in source.annotation_files.items()}


def _check_complete(source: Source, images: dict[str, SourceImage], tables: dict[str, Table]) -> None:
    """Every image needs a row in every table and every row an image; UserError counts and names what is missing."""
    for table in tables.values():
        if table.rows.keys() == images.keys():
            continue
        if without_image := sorted(table.rows.keys() - images.keys()):
            raise UserError(
                f"{source.images.path}: {table.file.name} lists {len(table.rows)} images, and {len(without_image)} of "
                f"them are missing, the first is {without_image[0]}; unpack or download the images again"
            )
        if without_row := sorted(images.keys() - table.rows.keys()):
            raise UserError(
                f"{table.file}: has no row for {len(without_row)} of the {len(images)} images in "
                f"{source.images.path}, the first is {without_row[0]}; download it again"
            )


def _names_of_split(partition: Table, split: str) -> list[str]:
    if wrong := [name for name, value in partition.rows.items() if value not in SPLITS]:
        raise UserError(f"{partition.file}: {wrong[0]} is in split {partition.rows[wrong[0]]!r}, expected 0, 1 or 2")
    names = [name for name, value in partition.rows.items() if SPLITS[value] == split]
    if not names:
        counted = ", ".join(sorted({SPLITS[value] for value in partition.rows.values()}))
        raise UserError(f"{partition.file}: no image belongs to the split {split!r} (there is: {counted})")
    return names
