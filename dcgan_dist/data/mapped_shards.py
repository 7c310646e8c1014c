"""Any sample's JPEG bytes by its number, from tars mapped into memory: nothing is read before it is looked at."""

from __future__ import annotations

import errno
import mmap
import resource
from collections.abc import Callable
from pathlib import Path
from typing import IO, Protocol

import numpy as np

from dcgan_dist.data.shard_format import Manifest, Shard, ShardError, check_shard, check_sizes, index_name
from dcgan_dist.data.shard_index import Sample, read_index


class EncodedImages(Protocol):
    """What a decoder reads: image files by the number of the sample."""

    def jpeg(self, sample: int) -> np.ndarray:
        """The bytes of an image file: uint8 [size]."""
        ...

    @property
    def name(self) -> Callable[[int], str]:
        """Where a sample lies, for a message."""
        ...

    @property
    def folder(self) -> Path:
        """Where all lie."""
        ...


class MappedShards:
    """A shard folder as a list of JPEGs, in the order of the shards.

    Raises ShardError naming the file if one is missing, truncated or does not fit its index, and if there are more
    shards than files may be open.
    """

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        check_sizes(folder, manifest)
        self.folder = folder
        self.manifest = manifest
        self._places = read_places(folder, manifest)
        self._bytes = _map_all(folder, manifest)

    def __len__(self) -> int:
        return len(self._places)

    @property
    def image_bytes(self) -> np.ndarray:
        """Size of each image's file: int64 [samples]."""
        return self._places[:, 2]

    def jpeg(self, sample: int) -> np.ndarray:
        """The bytes of one JPEG: uint8 [size], a view that copies nothing."""
        shard, offset, size = self._places[sample]
        return self._bytes[shard][offset : offset + size]

    def name(self, sample: int) -> str:
        """Where a sample lies, for a message: tar and key, which is looked up in the index."""
        number, offset, _ = self._places[sample]
        shard = self.manifest.shards[number]
        return f"{self.folder / shard.file}, image {sample_key(self.folder, shard, offset)}"

    def open_tar(self, number: int) -> IO[bytes]:
        """A tar for reading."""
        return (self.folder / self.manifest.shards[number].file).open("rb")

    def verify(self, part: int, parts: int, before_each: Callable[[], None] = lambda: None) -> None:
        """Reads every `parts`-th shard in full and compares its checksum; ShardError names a damaged file."""
        for shard in self.manifest.shards[part::parts]:
            before_each()
            check_shard(self.folder, shard)


def read_places(folder: Path, manifest: Manifest) -> np.ndarray:
    """Where each sample lies: rows of shard, offset and size, int64 [samples, 3].

    All that is kept of the indices, since they can list millions. Raises ShardError if one does not fit its tar.
    """
    return np.concatenate([_places(number, _samples(folder, shard)) for number, shard in enumerate(manifest.shards)])


def sample_key(folder: Path, shard: Shard, offset: int) -> str:
    """What the index calls the image at an offset of a tar."""
    return next(sample.key for sample in _samples(folder, shard) if sample.image_offset == offset)


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


def _places(shard: int, samples: list[Sample]) -> np.ndarray:
    return np.array([(shard, sample.image_offset, sample.image_size) for sample in samples], dtype=np.int64)


def _map_all(folder: Path, manifest: Manifest) -> list[np.ndarray]:
    """Every tar as bytes. Each keeps a file open, and many systems allow 1,024 unless they are asked for more."""
    count = len(manifest.shards)
    hard = allow_open_files(count)
    try:
        return [map_file(folder / shard.file) for shard in manifest.shards]
    except OSError as error:
        if error.errno != errno.EMFILE:
            raise
        raise ShardError(
            f"{folder}: its {count} shards are more files than a process may have open here ({hard}, see: ulimit -Hn); "
            "prepare it again with a larger --samples-per-shard"
        ) from None


def allow_open_files(count: int) -> int:
    """Lets this process have so many more files open, up to what the system allows: returns that."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft + count, hard), hard))
    return hard


def map_file(path: Path) -> np.ndarray:
    """A file's bytes, of which nothing is read before it is looked at: uint8 [size]."""
    with path.open("rb") as file:
        return np.frombuffer(mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), dtype=np.uint8)
