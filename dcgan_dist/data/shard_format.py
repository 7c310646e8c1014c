"""A folder of shards: which files it has and the manifest that vouches for them.

    celeba-train-000000.tar   members <key>.jpg (the source's bytes) and <key>.json (its annotations)
    celeba-train-000000.idx   where each member lies in the tar, see `dcgan_dist.data.shard_index`
    ...
    manifest.json             what belongs to the folder, with checksums; written last

Shared by `data_prep`, which writes such folders, and the trainer, which reads them. Standard library only.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import write_text
from dcgan_dist.base.urls import Remote, is_url

MANIFEST_NAME = "manifest.json"
FORMAT_VERSION = 1

_PREPARE = "python -m data_prep.celeba --source ... --out ... (data_prep.images for other pictures)"
_SHARD_FILE = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*\.tar")
_SHA256 = re.compile(r"[0-9a-f]{64}")

T = TypeVar("T")


class ShardError(UserError):
    """A shard folder that cannot be used: missing, unfinished, damaged or edited."""


@dataclass(frozen=True)
class Shard:
    """One tar of the folder and the index beside it."""

    file: str
    """Name of the tar inside the folder."""
    samples: int
    """Images in it, at least one."""
    bytes: int
    """Size of the tar."""
    sha256: str
    """Checksum of the tar, in hexadecimal."""
    index_sha256: str
    """Checksum of the index, in hexadecimal."""


@dataclass(frozen=True)
class Manifest:
    """All that is known of a shard folder; two folders with the same `fingerprint` hold the same bytes."""

    dataset: str
    """celeba, or synthetic for drawn faces."""
    split: str
    """train, valid, test or all."""
    seed: int
    """Seed of the shuffle over all samples."""
    samples: int
    """Images in all shards together."""
    smallest_image: tuple[int, int]
    """Smallest height and smallest width in pixels over all images."""
    largest_image: tuple[int, int]
    """Largest height and largest width in pixels over all images."""
    skipped: tuple[str, ...]
    """File names of images that were left out: damaged or too small."""
    shards: tuple[Shard, ...]
    """In the order of the samples."""
    plan: str = ""
    """Checksum of what was to be prepared (source files, annotations, split, seed, shard size); empty if unknown."""
    format_version: int = FORMAT_VERSION

    @property
    def fingerprint(self) -> str:
        """SHA-256 over the canonical JSON of all fields: the identity of the data set."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()


# --- the manifest -----------------------------------------------------------------------------------------------------


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json` whole or not at all. Raises OSError as the file system does."""
    content = asdict(manifest) | {"fingerprint": manifest.fingerprint}
    write_text(folder / MANIFEST_NAME, json.dumps(content, indent=1) + "\n")


def read_manifest(folder: Path | str) -> Manifest:
    """The manifest of a folder or URL, checked for form and for being unedited; the shards are not looked at.

    Raises ShardError with one line if it is missing, malformed, of another version or edited, and UserError if a URL
    cannot be read.
    """
    path = f"{folder}/{MANIFEST_NAME}" if is_url(folder) else Path(folder) / MANIFEST_NAME
    if not is_url(folder) and not Path(folder).is_dir():
        raise ShardError(f"{folder}: no such folder of shards; make it with: {_PREPARE}")
    try:
        content = json.loads(path.read_bytes() if isinstance(path, Path) else _of_url(str(folder)))
    except FileNotFoundError:
        raise ShardError(
            f"{folder}: there is no {MANIFEST_NAME}, so this is no shard folder or its preparation is unfinished; "
            f"make or finish it with: {_PREPARE}"
        ) from None
    except (OSError, ValueError, RecursionError) as error:
        raise ShardError(f"{path}: cannot be read as JSON ({error}); prepare the folder again") from None
    if not isinstance(content, dict):
        raise ShardError(f"{path}: is not a manifest; prepare the folder again")
    if content.get("format_version") != FORMAT_VERSION:
        raise ShardError(
            f"{path}: format_version is {content.get('format_version')!r}, this program reads {FORMAT_VERSION}; "
            "prepare the folder again"
        )
    try:
        manifest = _manifest_from(content)
        _check_consistent(manifest, content.get("fingerprint"))
    except ValueError as error:
        raise ShardError(f"{path}: {error}; prepare the folder again") from None
    return manifest


def _of_url(url: str) -> bytes:
    """A manifest behind a URL. Raises FileNotFoundError if there is none, and UserError."""
    content = Remote(url).read(MANIFEST_NAME)
    if content is None:
        raise FileNotFoundError
    return content


def _manifest_from(content: dict[str, Any]) -> Manifest:
    """The manifest as typed values; ValueError says which field is missing, unknown or of the wrong type."""
    known = {field.name for field in fields(Manifest)} | {"fingerprint"}
    if unknown := sorted(set(content) - known):
        raise ValueError(f"unknown field {unknown[0]!r}")
    return Manifest(
        dataset=_typed(content, "dataset", str),
        split=_typed(content, "split", str),
        seed=_typed(content, "seed", int),
        samples=_typed(content, "samples", int),
        smallest_image=_height_width(content, "smallest_image"),
        largest_image=_height_width(content, "largest_image"),
        skipped=tuple(_typed({"skipped": name}, "skipped", str) for name in _typed(content, "skipped", list)),
        shards=tuple(_shard_from(entry) for entry in _typed(content, "shards", list)),
        plan=_typed(content, "plan", str),
    )


def _shard_from(entry: object) -> Shard:
    if not isinstance(entry, dict) or set(entry) != {field.name for field in fields(Shard)}:
        raise ValueError("an entry of 'shards' does not have the fields file, samples, bytes, sha256, index_sha256")
    shard = Shard(
        file=_typed(entry, "file", str),
        samples=_typed(entry, "samples", int),
        bytes=_typed(entry, "bytes", int),
        sha256=_typed(entry, "sha256", str),
        index_sha256=_typed(entry, "index_sha256", str),
    )
    if not _SHARD_FILE.fullmatch(shard.file):
        raise ValueError(f"unsafe shard name {shard.file!r} (a plain file name that ends in .tar is expected)")
    if not (_SHA256.fullmatch(shard.sha256) and _SHA256.fullmatch(shard.index_sha256)):
        raise ValueError(f"a checksum of {shard.file} is not SHA-256 in hexadecimal")
    if shard.samples == 0:
        raise ValueError(f"{shard.file} is listed with no samples")
    return shard


def _check_consistent(manifest: Manifest, fingerprint: object) -> None:
    counted = sum(shard.samples for shard in manifest.shards)
    if not manifest.shards:
        raise ValueError("it lists no shards")
    if len({shard.file for shard in manifest.shards}) < len(manifest.shards):
        raise ValueError("it lists a shard twice")
    if counted != manifest.samples:
        raise ValueError(f"'samples' is {manifest.samples}, but the shards add up to {counted}")
    if fingerprint != manifest.fingerprint:
        raise ValueError("the fingerprint does not fit the content, it was edited or damaged")


def _typed(content: dict[str, Any], name: str, kind: type[T]) -> T:
    value = content.get(name)
    if not isinstance(value, kind) or isinstance(value, bool) or (isinstance(value, int) and value < 0):
        expected = {"str": "text", "int": "a whole number >= 0", "list": "a list"}[kind.__name__]
        raise ValueError(f"{name!r} should be {expected}, it is {value!r}")
    return value


def _height_width(content: dict[str, Any], name: str) -> tuple[int, int]:
    value = _typed(content, name, list)
    if len(value) != 2:
        raise ValueError(f"{name!r} should be [height, width], it is {value!r}")
    return _typed({name: value[0]}, name, int), _typed({name: value[1]}, name, int)


# --- the shards -------------------------------------------------------------------------------------------------------


def index_name(tar_name: str) -> str:
    """Name of the index of a tar: celeba-train-000000.tar -> celeba-train-000000.idx."""
    return tar_name.removesuffix(".tar") + ".idx"


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Cheap check, without reading, that every tar is there in full length and its index beside it.

    Raises ShardError naming the first file that is not.
    """
    advice = f"see: python -m data_prep.verify {folder}"
    for shard in manifest.shards:
        tar = folder / shard.file
        for path in (tar, folder / index_name(shard.file)):
            if not path.is_file():
                raise ShardError(f"{path}: missing, though the manifest lists it; {advice}")
        if (size := tar.stat().st_size) != shard.bytes:
            kind = "truncated" if size < shard.bytes else "too long"
            raise ShardError(f"{tar}: {kind}, it has {size} bytes and the manifest says {shard.bytes}; {advice}")


def check_shard(folder: Path, shard: Shard) -> None:
    """Reads a tar and its index in full and compares their checksums with the manifest's.

    Raises ShardError naming the file whose bytes differ.
    """
    advice = f"see: python -m data_prep.verify {folder}"
    for name, expected in ((shard.file, shard.sha256), (index_name(shard.file), shard.index_sha256)):
        try:
            found = file_sha256(folder / name)
        except OSError as error:
            raise ShardError(f"{folder / name}: cannot be read ({error.strerror}); {advice}") from None
        if found != expected:
            raise ShardError(f"{folder / name}: damaged, its SHA-256 is not the manifest's; {advice}")


def file_sha256(path: Path) -> str:
    """SHA-256 of a file in hexadecimal, read piece by piece."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
