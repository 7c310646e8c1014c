"""The source's JPEGs, as files in a folder or as members of a zip."""

from __future__ import annotations

import os
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from data_prep.sources.zip_members import is_jpeg, list_jpegs
from dcgan_dist.base.errors import UserError

READ = 1 << 16  # bytes at a time: for a buffer of 1 MiB the system is asked for memory anew, at three times the time


class DamagedImage(Exception):
    """One image whose bytes cannot be had or decoded; the message says why."""


class SourceImage(NamedTuple):
    """One JPEG of the source; all but the name say where and how it lies in a zip."""

    name: str
    header_offset: int = 0
    stored_size: int = 0
    size: int = 0
    deflated: bool = False
    crc32: int = 0


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
        """The JPEG's bytes. Raises OSError."""
        handle = os.open(f"{self.path}/{image.name}", os.O_RDONLY)  # half the time of `open`
        try:
            content = os.read(handle, READ)
            while piece := os.read(handle, READ):  # a file system may give less than was asked for
                content += piece
            return content
        finally:
            os.close(handle)


@dataclass(frozen=True)
class ImageZip:
    """JPEG files in one folder of a zip."""

    path: Path

    def images(self) -> Iterator[SourceImage]:
        """All images in no particular order. Raises UserError for a bad zip, and where two folders could be meant."""
        for name, entry in list_jpegs(self.path):
            if entry.flag_bits & 1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise UserError(f"{self.path}: {name} is encrypted or packed in an unusual way; unpack the zip first")
            deflated = entry.compress_type == zipfile.ZIP_DEFLATED
            yield SourceImage(name, entry.header_offset, entry.compress_size, entry.file_size, deflated, entry.CRC)

    def size(self, image: SourceImage) -> int:
        """Bytes of the JPEG when unpacked."""
        return image.size

    def read(self, image: SourceImage) -> bytes:
        """The JPEG's bytes, unpacked. Raises DamagedImage where the zip is, and OSError.

        Not by `zipfile`, which would keep the list of all members in each process and seek through one shared handle.
        """
        with self.path.open("rb") as file:  # buffered: a bare file may give less than was asked for
            file.seek(image.header_offset)
            header = file.read(30)
            if len(header) < 30 or header[:4] != b"PK\x03\x04":
                raise DamagedImage("the zip is damaged where it should be")
            file.seek(sum(struct.unpack_from("<HH", header, 26)), os.SEEK_CUR)  # its name and extra fields
            content = file.read(image.stored_size)
        try:
            jpeg = zlib.decompress(content, wbits=-15, bufsize=image.size or 1) if image.deflated else content
        except zlib.error as error:
            raise DamagedImage(f"the zip cannot be unpacked there: {error}") from None
        if zlib.crc32(jpeg) != image.crc32:
            raise DamagedImage("its bytes do not have the checksum that the zip says")
        return jpeg
