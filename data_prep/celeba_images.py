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

from dcgan_dist.errors import UserError

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
        """All images in no particular order. Hidden files, which archives from a Mac leave behind, are passed over."""
        try:
            with os.scandir(self.path) as entries:
                for entry in entries:
                    if entry.name.endswith(".jpg") and not entry.name.startswith("."):
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
    """JPEG files in a zip, wherever in it they lie."""

    path: Path

    def images(self) -> Iterator[SourceImage]:
        """All images in no particular order. Raises UserError with a line of its own for each way a zip can be bad."""
        try:
            with zipfile.ZipFile(self.path) as archive:
                entries = archive.infolist()
        except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
            raise UserError(_why_no_zip(self.path, error)) from None
        for entry in entries:
            name = entry.filename.rpartition("/")[2]
            if not name.endswith(".jpg") or name.startswith("."):
                continue
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


def _why_no_zip(path: Path, error: Exception) -> str:
    """One line on what is wrong with a file that should be a zip."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as problem:
        return f"{path}: cannot be read ({problem.strerror})"
    if looks_like_html(start):
        return (
            f"{path}: is a web page, not a zip: Google Drive sends one when the file's download quota is used up; "
            "download it again later, or from the Baidu mirror on the official page"
        )
    if start.startswith(b"PK"):
        return f"{path}: is a truncated or damaged zip ({path.stat().st_size} bytes: {error}); download it again"
    return f"{path}: is not a zip file; download it again"


def looks_like_html(start: bytes) -> bool:
    """Whether a download is a web page, such as Google Drive's about its quota, in place of the file."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head"))
