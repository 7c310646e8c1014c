"""The source's JPEGs, as files in a folder or as members of a zip."""

from __future__ import annotations

import functools
import lzma
import os
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.entries import DamagedImage
from data_prep.sources.zip_members import is_jpeg, list_jpegs
from dcgan_dist.base.errors import UserError, in_one_line

DECOMPRESSION = (zlib.error, lzma.LZMAError)  # what the ways of packing raise beside OSError


class SourceImage(NamedTuple):
    """One JPEG of the source."""

    name: str
    member: str = ""
    """What it is called in a zip, with its folders."""
    size: int = 0
    """Bytes in a zip, when unpacked."""


@dataclass(frozen=True)
class ImageFolder:
    """JPEG files in a folder."""

    path: Path

    def images(self) -> Iterator[SourceImage]:
        """All images in no particular order, hidden files left out. Raises UserError if the folder cannot be read."""
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if is_jpeg(entry.name):
                        yield SourceImage(entry.name)
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None

    def size(self, image: SourceImage) -> int:
        """Bytes of the JPEG. Raises OSError."""
        return (self.path / image.name).stat().st_size

    def read(self, image: SourceImage) -> bytes:
        """The JPEG's bytes. Raises DamagedImage, and OSError."""
        return _assert_jpeg((self.path / image.name).read_bytes())


@dataclass(frozen=True)
class ImageZip:
    """JPEG files in one folder of a zip."""

    path: Path

    def images(self) -> Iterator[SourceImage]:
        """All images in no particular order. Raises UserError for a bad zip, and where two folders could be meant."""
        for name, entry in list_jpegs(self.path):
            if entry.flag_bits & 1:
                raise UserError(f"{self.path}: {name} is encrypted; unpack the zip first")
            yield SourceImage(name, entry.filename, entry.file_size)

    def size(self, image: SourceImage) -> int:
        """Bytes of the JPEG when unpacked."""
        return image.size

    def read(self, image: SourceImage) -> bytes:
        """The JPEG's bytes, unpacked. Raises DamagedImage where the zip is, and OSError."""
        try:
            return _assert_jpeg(_opened(self.path).read(image.member))
        except (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, ValueError, *DECOMPRESSION) as error:
            raise DamagedImage(f"the zip cannot be read there: {in_one_line(error)}") from None


@functools.cache
def _opened(path: Path) -> zipfile.ZipFile:
    """The zip, opened once in each process."""
    return zipfile.ZipFile(path)


def _assert_jpeg(content: bytes) -> bytes:
    if content[:3] != b"\xff\xd8\xff":
        raise DamagedImage("it is not a JPEG" if content else "it is empty")
    return content
