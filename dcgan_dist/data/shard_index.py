"""The index beside a tar, in DALI's format v1.2: where each sample's members lie.

    v1.2 2
    jpg 512 9042 000007.jpg json 10240 811 000007.json
    ...

The first line counts the lines that follow, one a sample: for each member extension, offset, size and name. Shared by
`data_prep`, which writes indices, and the trainer, which reads them. Standard library only.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from dcgan_dist.data.shard_format import Manifest, ShardError, index_name

IMAGE_EXTENSIONS = ("jpg", "png", "webp", "jpeg")


@dataclass(frozen=True, slots=True)
class Sample:
    """Where a sample's image and annotations lie in its tar, in bytes from the start of the file."""

    key: str
    image_extension: str
    """jpg, png or webp."""
    image_offset: int
    image_size: int
    annotation_offset: int
    annotation_size: int
    """0: there are none."""


def index_text(members: Iterable[tuple[str, int, int]]) -> str:
    """The index for a tar's files, each (name, offset, size), in their order; byte for byte what DALI's wds2idx writes.

    Raises ValueError if there are none, because DALI cannot read an index without samples.
    """
    samples: list[tuple[str, list[str]]] = []
    for name, offset, size in members:
        key, extension = _split_name(name)
        if not key or key.endswith("/"):
            continue  # a hidden file
        if not samples or samples[-1][0] != key:
            samples.append((key, []))
        samples[-1][1].append(f"{extension} {offset} {size} {name}")
    if not samples:
        raise ValueError("holds no samples")
    return "\n".join([f"v1.2 {len(samples)}", *(" ".join(components) for _, components in samples)]) + "\n"


def index_lines(tar_path: Path) -> str:
    """The index of the tar as it lies on the disk.

    Raises tarfile.TarError for a damaged tar and ValueError for one without samples.
    """
    with tarfile.open(tar_path, "r:") as tar:
        return index_text((member.name, member.offset_data, member.size) for member in tar if member.isreg())


def read_index(path: Path) -> list[Sample]:
    """The samples of a shard in the order of the tar; ShardError names the file and the line that is malformed."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, ValueError) as error:
        raise ShardError(f"{path}: cannot be read ({error})") from None
    if not lines or lines[0] != f"v1.2 {len(lines) - 1}":
        raise ShardError(f"{path}, line 1: expected 'v1.2' and the number of lines that follow ({len(lines) - 1})")
    samples = []
    for number, line in enumerate(lines[1:], start=2):
        try:
            samples.append(_sample_from(line))
        except (KeyError, ValueError):
            expected = "jpg OFFSET SIZE KEY.jpg json OFFSET SIZE KEY.json"
            raise ShardError(f"{path}, line {number}: expected '{expected}', found {line[:80]!r}") from None
    return samples


class AnnotatedShards(Protocol):
    """Tars that can be opened by their number, and may have to be fetched for it."""

    @property
    def folder(self) -> Path:
        """Where their indices lie."""
        ...

    @property
    def manifest(self) -> Manifest:
        """What is known of them."""
        ...

    def open_tar(self, number: int) -> IO[bytes]:
        """A tar for reading."""
        ...


def read_annotations(shards: AnnotatedShards, count: int) -> Iterator[Any]:
    """What is written beside each of the first `count` images, in the order of the shards; {} where nothing is.

    Raises ShardError naming the member that is not JSON.
    """
    folder = shards.folder
    for number, shard in enumerate(shards.manifest.shards):
        with shards.open_tar(number) as file:
            for sample in read_index(folder / index_name(shard.file))[:count]:
                file.seek(sample.annotation_offset)
                try:
                    yield json.loads(file.read(sample.annotation_size) or b"{}")
                except ValueError:
                    where = f"{folder / shard.file}: {sample.key}.json"
                    raise ShardError(f"{where} is not JSON; see: python -m data_prep.verify {folder}") from None
        count -= min(count, shard.samples)
        if not count:
            return


def attributes_of(annotation: Any) -> dict[str, bool]:
    """Which attributes an image is said to show, and which not; {} if nothing is said. No is 0, or -1 as in CelebA."""
    attributes = annotation.get("attributes") if isinstance(annotation, dict) else None
    return {name: value == 1 for name, value in attributes.items()} if isinstance(attributes, dict) else {}


def _sample_from(line: str) -> Sample:
    """Parses one line of an index; KeyError or ValueError where it is not one of ours."""
    words = line.split(" ")
    members = {
        extension: (int(offset), int(size), name)
        for extension, offset, size, name in zip(words[0::4], words[1::4], words[2::4], words[3::4], strict=True)
    }
    extension = next((name for name in IMAGE_EXTENSIONS if name in members), "jpg")
    image_offset, image_size, image_name = members[extension]
    key = _split_name(image_name)[0]
    annotation_offset, annotation_size, annotation_name = members.get("json", (512, 0, f"{key}.json"))
    if annotation_name != f"{key}.json" or image_name != f"{key}.{extension}" or image_size < 1 or annotation_size < 0:
        raise ValueError("members do not belong together")
    if image_offset < 512 or annotation_offset < 512 or image_offset % 512 or annotation_offset % 512:
        raise ValueError("not an offset in a tar")
    return Sample(key, extension, image_offset, image_size, annotation_offset, annotation_size)


def _split_name(member_name: str) -> tuple[str, str]:
    """Key and extension, parted at the first dot of the base name as webdataset does: a/7.seg.png -> a/7, seg.png."""
    dot = member_name.find(".", member_name.rfind("/") + 1)
    return member_name[:dot], member_name[dot + 1 :]
