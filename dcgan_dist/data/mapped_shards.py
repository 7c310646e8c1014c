"""Any sample's JPEG bytes by its number, from tars mapped into memory: nothing is read before it is looked at."""

from __future__ import annotations

import mmap
from pathlib import Path

import numpy as np

from dcgan_dist.data.shard_format import Manifest, Shard, ShardError, check_shard, check_sizes, index_name
from dcgan_dist.data.shard_index import Sample, read_index


class MappedShards:
    """A shard folder as a list of JPEGs, in the order of the shards.

    Raises ShardError naming the file if one is missing, truncated or does not fit its index.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        check_sizes(folder, manifest)
        self.folder = folder
        self.manifest = manifest
        self._keys: list[str] = []
        places: list[tuple[int, int, int]] = []  # shard, offset, size
        for number, shard in enumerate(manifest.shards):
            for sample in _samples(folder, shard):
                self._keys.append(sample.key)
                places.append((number, sample.image_offset, sample.image_size))
        self._places = np.array(places, dtype=np.int64)
        self._bytes = [_mapped(folder / shard.file) for shard in manifest.shards]

    def __len__(self) -> int:
        return len(self._places)

    def jpeg(self, sample: int) -> np.ndarray:
        """The bytes of one JPEG: uint8 [size], a view that copies nothing."""
        shard, offset, size = self._places[sample]
        return self._bytes[shard][offset : offset + size]

    def name(self, sample: int) -> str:
        """Where a sample lies, for a message: tar and key."""
        return f"{self.folder / self.manifest.shards[self._places[sample][0]].file}, image {self._keys[sample]}"

    def verify(self, part: int, parts: int) -> None:
        """Reads every `parts`-th shard in full and compares its checksum; ShardError names a damaged file."""
        for shard in self.manifest.shards[part::parts]:
            check_shard(self.folder, shard)


def _samples(folder: Path, shard: Shard) -> list[Sample]:
    path = folder / index_name(shard.file)
    samples = read_index(path)
    if len(samples) != shard.samples:
        raise ShardError(
            f"{path}: lists {len(samples)} samples, the manifest says {shard.samples}; "
            f"see: python -m data_prep.verify {folder}"
        )
    for sample in samples:
        if sample.image_offset + sample.image_size > shard.bytes:
            raise ShardError(
                f"{path}: image {sample.key} lies beyond the end of {shard.file}; "
                f"see: python -m data_prep.verify {folder}"
            )
    return samples


def _mapped(path: Path) -> np.ndarray:
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
