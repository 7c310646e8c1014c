"""Which of any images goes into which tar: a function of their names, the split, the seed and the shard size alone."""

from __future__ import annotations

import hashlib
import json
from array import array
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

from data_prep.sources.entries import DamagedImage, Entry, ImageSource
from data_prep.sources.packed_table import PackedTable
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.shard_index import Sample

MOST_CLASSES_AS_ATTRIBUTES = 100
KEY_DIGITS = 9


class PlannedImages(NamedTuple):
    """What of any images goes into one tar."""

    file: str
    source: ImageSource
    images: list[Entry]
    keys: list[str]
    classes: tuple[str, ...]
    settings: str

    def annotations(self) -> list[bytes]:
        """The JSON of each image: its name, its class, and what the source says of it."""
        return [json.dumps(self._described(image), ensure_ascii=False).encode() for image in self.images]

    def _described(self, image: Entry) -> dict[str, object]:
        described: dict[str, object] = {"file": image.name}
        if image.label:
            described["class"] = image.label
        if image.split:
            described["split"] = image.split
        if self.classes and len(self.classes) <= MOST_CLASSES_AS_ATTRIBUTES:
            described["attributes"] = {name: name == image.label for name in self.classes}
        try:
            return self.source.annotations(image) | described
        except DamagedImage:
            return described

    def digest(self, annotations: list[bytes]) -> str:
        """Checksum of all this, sizes included."""
        sizes = json.dumps([image.size for image in self.images]).encode()
        return hashlib.sha256(b"\n".join([self.settings.encode(), sizes, *annotations])).hexdigest()

    def fits(self, packed: list[Sample]) -> bool:
        """Whether these samples are of these images. The digest knows the sizes, so this is all that is left to ask."""
        return {sample.key for sample in packed} <= set(self.keys)


@dataclass(frozen=True)
class ImagePlan:
    """Everything that the bytes of the shards follow from."""

    dataset: str
    source: ImageSource
    split: str
    seed: int
    samples_per_shard: int
    entries: PackedTable[Entry]
    """Of the split, sorted by name."""
    order: array[int]
    """Numbers of the entries, shuffled."""
    classes: tuple[str, ...]
    settings: str
    """Whatever else the stored images depend on."""

    @property
    def samples(self) -> int:
        """Images in all shards together."""
        return len(self.order)

    @cached_property
    def shards(self) -> dict[str, slice]:
        """For each tar its part of `order`."""
        starts = range(0, self.samples, self.samples_per_shard)
        return {
            f"{self.dataset}-{self.split}-{number:06d}.tar": slice(start, start + self.samples_per_shard)
            for number, start in enumerate(starts)
        }

    def shard(self, tar_name: str) -> PlannedImages:
        """What goes into a tar."""
        numbers = self.order[self.shards[tar_name]]
        images = [self.entries[number] for number in numbers]
        if not self.classes:
            images = [image._replace(label="") for image in images]
        keys = [f"{number:0{KEY_DIGITS}d}" for number in numbers]
        settings = json.dumps([self.dataset, self.split, self.seed, self.samples_per_shard, self.settings])
        return PlannedImages(tar_name, self.source, images, keys, self.classes, settings)


def choose(entries: PackedTable[Entry], split: str, hold_out: float) -> PackedTable[Entry]:
    """The entries of a split: as the source divides them or, with `hold_out`, by a hash of the name.

    So a data set that has grown keeps every image where it was. Raises UserError if there is no such division.
    """
    if split == "all":
        return entries
    if not hold_out and not any(entry.split for entry in entries):
        raise UserError(f"--split {split}: the source is not divided; add --hold-out 0.05, or say --split all")
    return entries.only(number for number, entry in enumerate(entries) if _split_of(entry, hold_out) == split)


def _split_of(entry: Entry, hold_out: float) -> str:
    return ("valid" if _share(entry.name) < hold_out else "train") if hold_out else entry.split


def _share(name: str) -> float:
    """A number in [0, 1) that depends on the name alone."""
    return int.from_bytes(hashlib.sha256(name.encode(errors="surrogateescape")).digest()[:8], "big") / 2**64
