"""Image files in a folder or a zip. The first folder below is an image's class, unless a dataset.json says more."""

from __future__ import annotations

import functools
import json
import os
import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.downloads import why_no_zip
from data_prep.sources.entries import DamagedImage, Entry
from dcgan_dist.base.errors import UserError, in_one_line

IMAGE_SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".gif", ".ppm", ".pgm")
)
LABELS_FILE = "dataset.json"
"""StyleGAN's: {"labels": [["00000/img00000000.png", 6], ...]}."""


def is_image(name: str) -> bool:
    """Whether a path is called like an image, and neither it nor a folder above it is hidden."""
    if name.startswith(".") or "/." in name or ("__MACOSX" in name and "__MACOSX" in name.split("/")):
        return False
    _, dot, suffix = name.rpartition(".")
    return f"{dot}{suffix.lower()}" in IMAGE_SUFFIXES


def class_of(name: str, labels: Mapping[str, str] | None) -> str:
    """The class of an image by its path inside the source."""
    if labels is not None:
        return labels.get(name, "")
    return name.split("/")[0] if "/" in name else ""


def read_labels(content: bytes, where: Path) -> dict[str, str]:
    """The class of each image in a dataset.json, which may name none. Raises UserError if it is malformed."""
    try:
        rows = json.loads(content)["labels"]
        return {str(name): str(label) for name, label in rows or ()}
    except (ValueError, LookupError, TypeError) as error:
        why = in_one_line(error, 80)
        raise UserError(f"{where}: its {LABELS_FILE} is not StyleGAN's ({why}); remove it or mend it") from None


def files_below(folder: Path) -> Iterator[tuple[str, os.DirEntry[str]]]:
    """Every file of a folder and of those in it, and its path from there. Raises UserError if one cannot be read.

    os.walk would hold all names of a folder at once.
    """
    left = [""]
    while left:
        above = left.pop()
        try:
            with os.scandir(folder / above) as found:
                for entry in found:
                    name = f"{above}{entry.name}"
                    if _is_folder(entry):
                        left.append(f"{name}/")
                    else:
                        yield name, entry
        except OSError as error:
            raise UserError(f"{error.filename}: cannot be read ({error.strerror})") from None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link that leads in circles
        return False


@dataclass(frozen=True)
class FolderOfImages:
    """Image files anywhere below a folder."""

    path: Path

    def entries(self) -> Iterator[Entry]:
        """All images; hidden ones are left out. Raises UserError if a folder cannot be read."""
        labels_file = self.path / LABELS_FILE
        labels = read_labels(labels_file.read_bytes(), self.path) if labels_file.is_file() else None
        for name, file in files_below(self.path):
            if is_image(name):
                shown = os.fsencode(name).decode(errors="backslashreplace")
                where = () if shown == name else (name,)
                yield Entry(shown, class_of(name, labels), "", file.stat().st_size, where)

    def read(self, entry: Entry) -> bytes:
        """The file's bytes. Raises OSError."""
        name = entry.where[0] if entry.where else entry.name
        with open(f"{self.path}/{name}", "rb", buffering=0) as file:  # noqa: PTH123 (a Path takes half as long again)
            return file.read()

    def annotations(self, entry: Entry) -> dict[str, Any]:
        """Nothing beside name and class."""
        return {}


@dataclass(frozen=True)
class ZipOfImages:
    """Image files anywhere in a zip."""

    path: Path

    def entries(self) -> Iterator[Entry]:
        """All images; hidden ones are left out. Raises UserError for a bad zip."""
        try:
            archive = _zip(self.path)
            members = [member for member in archive.infolist() if is_image(member.filename)]
            labels = archive.read(LABELS_FILE) if LABELS_FILE in archive.namelist() else None
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise UserError(why_no_zip(self.path, error)) from None
        by_name = None if labels is None else read_labels(labels, self.path)
        seen: set[str] = set()
        for member in members:
            if member.flag_bits & 1:
                raise UserError(f"{self.path}: {member.filename} is encrypted; unpack the zip first")
            if member.filename in seen:
                raise UserError(f"{self.path}: holds {member.filename} twice; unpack it and give the folder")
            seen.add(member.filename)
            name = member.filename
            yield Entry(name, class_of(name, by_name), "", member.file_size)

    def names(self) -> Iterator[str]:
        """Everything in the zip, hidden things left out."""
        names = _zip(self.path).namelist()
        return (name for name in names if not name.startswith("__MACOSX/") and "/." not in f"/{name}")

    def read(self, entry: Entry) -> bytes:
        """The member's bytes. Raises DamagedImage where the zip is, and OSError."""
        try:
            return _zip(self.path).read(entry.name)
        except OSError:
            raise
        except Exception as error:  # of the zip, of whatever it is packed with
            raise DamagedImage(f"the zip cannot be read there: {in_one_line(error)}") from None

    def annotations(self, entry: Entry) -> dict[str, Any]:
        """Nothing beside name and class."""
        return {}


@functools.cache
def _zip(path: Path) -> zipfile.ZipFile:
    """The zip, opened once in each process."""
    return zipfile.ZipFile(path)
