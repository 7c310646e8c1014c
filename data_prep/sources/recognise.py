"""What a source of images is, told by its looks."""

from __future__ import annotations

import itertools
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.entries import ImageSource
from data_prep.sources.image_files import (
    IMAGE_SUFFIXES,
    LABELS_FILE,
    FolderOfImages,
    ZipOfImages,
    files_below,
    is_image,
)
from data_prep.sources.lmdb_records import LmdbOfImages
from data_prep.sources.parquet import ParquetOfImages
from data_prep.sources.tars import Tars
from data_prep.sources.zip_members import ALIGNED
from dcgan_dist.base.errors import UserError

UNDERSTOOD = (
    "a folder or a zip of images, Parquet files, WebDataset tars, an LMDB (a folder with data.mdb), or CelebA's folder"
)
LOOKED_AT = 100_000  # files of a folder, before it is taken for one of images


class Recognised(NamedTuple):
    """A source, and what it is in a user's words."""

    source: ImageSource
    kind: str


def is_celeba(path: Path) -> bool:
    """Whether it has CelebA's layout, which `data_prep.celeba` understands better."""
    if path.is_file():
        return path.name == f"{ALIGNED}.zip"
    roots = (path, path / "celeba", path / "Img")
    return any((root / name).exists() for root in roots for name in (ALIGNED, f"{ALIGNED}.zip", "list_attr_celeba.txt"))


def recognise(path: Path, image_key: str | None, copy: Path) -> Recognised:
    """The source at `path`; `copy` is where Parquet's images may be copied. Raises UserError if it is none, OSError."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder; --source takes {UNDERSTOOD}")
    if path.is_file():
        suffix = path.suffix.lower()
        if suffix == ".zip":
            return Recognised(ZipOfImages(path), "a zip of images")
        if suffix == ".parquet":
            return Recognised(ParquetOfImages(path, copy, image_key), "a Parquet file")
        if suffix == ".tar":
            return Recognised(Tars(path, image_key), "a WebDataset tar")
        raise UserError(f"{path}: is no source of images; --source takes {UNDERSTOOD}")
    if (path / "data.mdb").is_file():
        return Recognised(LmdbOfImages(path), "an LMDB")
    suffixes = _suffixes(path)
    if not suffixes & IMAGE_SUFFIXES:
        if ".parquet" in suffixes:
            return Recognised(ParquetOfImages(path, copy, image_key), "a folder of Parquet files")
        if next(path.glob("*.tar"), None):
            return Recognised(Tars(path, image_key), "a folder of WebDataset tars")
        raise UserError(f"{path}: holds no images; --source takes {UNDERSTOOD}")
    labelled = f" with {LABELS_FILE}" if (path / LABELS_FILE).is_file() else ""
    return Recognised(FolderOfImages(path), f"a folder of images{labelled}")


def passed_over(source: ImageSource) -> str:
    """Which files of a folder or zip are no images, in a few words; empty if there are none."""
    if isinstance(source, FolderOfImages):
        names: Iterator[str] = (name for name, _ in files_below(source.path))
    elif isinstance(source, ZipOfImages):
        names = source.names()
    else:
        return ""
    kinds = Counter(
        os.path.splitext(name)[1].lower() or "no suffix"  # noqa: PTH122 (a name in a zip)
        for name in names
        if not is_image(name) and name != LABELS_FILE and not name.endswith("/")
    )
    if not kinds:
        return ""
    named = ", ".join(f"{kind} {count}" for kind, count in kinds.most_common(5)) + (", ..." if len(kinds) > 5 else "")
    return f"passed over what is no image: {named}"


def _suffixes(path: Path) -> set[str]:
    """Those among the first files of a folder, hidden ones left out, up to the first image."""
    found: set[str] = set()
    for name, _ in itertools.islice(files_below(path), LOOKED_AT):
        if not any(part.startswith(".") for part in name.split("/")):
            found.add(Path(name).suffix.lower())
            if found & IMAGE_SUFFIXES:
                break
    return found
