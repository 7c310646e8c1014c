"""CelebA as people have it: the official folders, torchvision's folder, the zip, or Kaggle's copy.

    official     Img/img_align_celeba/ or Img/img_align_celeba.zip, Anno/list_attr_celeba.txt and so on, Eval/
    torchvision  celeba/img_align_celeba/ or celeba/img_align_celeba.zip, and the annotation files beside it
    Kaggle       img_align_celeba/img_align_celeba/, and list_attr_celeba.csv, ... with commas and a header

Rows of annotations stay text until a worker needs them: all 202,599 of them as Python objects would take gigabytes.
"""

from __future__ import annotations

import itertools
import json
import os
import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from dcgan_dist.errors import UserError

WHERE_TO_GET_IT = (
    "Get CelebA at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba.zip (no need to unpack it), "
    "list_attr_celeba.txt and list_eval_partition.txt, and if you want them in the shards identity_CelebA.txt, "
    "list_landmarks_align_celeba.txt, list_bbox_celeba.txt; put them into one folder"
)
ANNOTATION_FILES = {
    "attributes": "list_attr_celeba",
    "partition": "list_eval_partition",
    "identity": "identity_CelebA",
    "landmarks": "list_landmarks_align_celeba",
    "bbox": "list_bbox_celeba",
}
SPLITS = {"0": "train", "1": "valid", "2": "test"}

_JSON_OF_ATTRIBUTE = {"1": "true", "-1": "false", "0": "false"}  # some copies write 0 for -1
_HEADERLESS = ("partition", "identity")  # among the .txt files; the others start with a count and a header
_IMAGE_FOLDERS = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_IMAGE_ZIPS = ("img_align_celeba.zip", "Img/img_align_celeba.zip")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.jpg")  # one dot: the tar's key must end where the extension begins


class DamagedImage(Exception):
    """One image whose bytes cannot be had or decoded; the message says why."""


# --- images -----------------------------------------------------------------------------------------------------------


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
                names = [entry.name for entry in entries]
        except OSError as error:
            raise UserError(f"{self.path}: cannot be read ({error.strerror})") from None
        return (SourceImage(name) for name in names if name.endswith(".jpg") and not name.startswith("."))

    def size(self, image: SourceImage) -> int:
        """Bytes of the JPEG. Raises OSError."""
        return (self.path / image.name).stat().st_size

    def read(self, image: SourceImage) -> bytes:
        """The JPEG's bytes. Raises OSError."""
        handle = os.open(f"{self.path}/{image.name}", os.O_RDONLY)  # half the time of `open`
        try:
            content = os.read(handle, 1 << 20)
            while piece := os.read(handle, 1 << 20):  # a file system may give less than was asked for
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
        with self.path.open("rb", buffering=0) as file:
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
    if _looks_like_html(start):
        return (
            f"{path}: is a web page, not a zip: Google Drive sends one when the file's download quota is used up; "
            "download it again later, or from the Baidu mirror on the official page"
        )
    if start.startswith(b"PK"):
        return f"{path}: is a truncated or damaged zip ({path.stat().st_size} bytes: {error}); download it again"
    return f"{path}: is not a zip file; download it again"


def _looks_like_html(start: bytes) -> bool:
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head"))


# --- annotations ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Table:
    """One annotation file: by image name its values as text, one blank between two."""

    file: Path
    columns: tuple[str, ...]
    rows: dict[str, str]


def read_table(part: str, path: Path) -> Table:
    """Reads one annotation file of either format; `part` is a key of ANNOTATION_FILES.

    Raises UserError naming the file where it is not what its name says, or where its count is wrong.
    """
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; download it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    if _looks_like_html(text[:512].encode()):
        raise UserError(f"{path}: is a web page, not the annotations (Google Drive's quota page?); download it again")
    try:
        return _parse_csv(path, text) if path.suffix == ".csv" else _parse_text(part, path, text)
    except ValueError as error:
        raise UserError(f"{path}: {error}; download it again") from None


def _parse_text(part: str, path: Path, text: str) -> Table:
    """The official format: a count and a header in three of the files, then values in columns."""
    if part in _HEADERLESS:
        return Table(path, (part,), _rows(text))
    count, header, body = (text + "\n\n").split("\n", 2)
    columns = tuple(name for name in header.split() if name != "image_id")
    if not count.strip().isdecimal() or not columns:
        raise ValueError("should start with a line that holds the count and a line with the names of the columns")
    rows = _rows(body)
    if len(rows) != int(count):
        raise ValueError(f"says that it has {int(count)} rows and has {len(rows)}")
    return Table(path, columns, rows)


def _parse_csv(path: Path, text: str) -> Table:
    """Kaggle's format: a header that starts with image_id, then values between commas."""
    header, _, body = text.partition("\n")
    first, *columns = header.split(",")
    if first != "image_id" or not columns:
        raise ValueError("should start with a header line 'image_id,...'")
    return Table(path, tuple(columns), _rows(body.replace(",", " ")))


def _rows(text: str) -> dict[str, str]:
    """Parts the lines into image name and values; all at once, since line by line takes five times as long."""
    while "  " in text:
        text = text.replace("  ", " ")
    lines = [line for line in text.replace(" \n", "\n").split("\n") if line]
    try:
        rows = dict(line.split(" ", 1) for line in lines)
    except ValueError:
        alone = next(line for line in lines if " " not in line)
        raise ValueError(f"the line {alone[:60]!r} should hold the name of an image and its values") from None
    if not rows:
        raise ValueError("holds no rows")
    if len(rows) < len(lines):
        raise ValueError(f"lists {len(lines) - len(rows)} images twice")
    return rows


def json_template(part: str, columns: tuple[str, ...]) -> str:
    """JSON with a place for each value of a row; filling it in is several times as fast as building and dumping."""
    if part == "partition":
        return '"split":%s'
    if part == "identity":
        return '"identity":%s'
    return f'"{part}":{{{",".join(json.dumps(name).replace("%", "%%") + ":%s" for name in columns)}}}'


def json_values(part: str, row: str) -> tuple[str | int, ...]:
    """A row's values as they go into the template. Raises ValueError or KeyError for one that cannot be."""
    if part == "attributes":
        return tuple([_JSON_OF_ATTRIBUTE[word] for word in row.split(" ")])
    if part == "partition":
        return (f'"{SPLITS[row]}"',)
    return tuple(map(int, row.split(" ")))


# --- the layouts ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Source:
    """Where a copy of CelebA, or of drawn faces in its layout, keeps its parts."""

    dataset: str
    images: ImageFolder | ImageZip
    annotation_files: dict[str, Path]

    def list_images(self) -> dict[str, SourceImage]:
        """All images by name. Raises UserError for a bad zip and for a name that could not stand in a shard."""
        images = {image.name: image for image in self.images.images()}
        if unsafe := [name for name in images if not _SAFE_NAME.fullmatch(name)]:
            raise UserError(
                f"{self.images.path}: {unsafe[0]!r} is no name for an image; expected is one like 000001.jpg"
            )
        return images


def find_source(path: Path) -> Source:
    """Recognises the layout. Raises UserError, saying where to get CelebA, if there are no images at `path`."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. {WHERE_TO_GET_IT}")
    roots = [path, path / "celeba"] if path.is_dir() else [path.parent]
    images = _find_images(roots) if path.is_dir() else ImageZip(path)
    if images is None:
        missing = "img_align_celeba/ with JPEG files nor img_align_celeba.zip"
        raise UserError(f"{path}: holds neither {missing}. {WHERE_TO_GET_IT}")
    above = images.path.resolve().parent  # --source may be the folder of images itself, or Img/ of the official layout
    while above.name in ("img_align_celeba", "Img"):
        above = above.parent
    roots.append(above)
    dataset = "synthetic" if any((root / "synthetic.json").is_file() for root in roots) else "celeba"
    return Source(dataset, images, _find_annotations(roots))


def _find_images(roots: list[Path]) -> ImageFolder | ImageZip | None:
    folders = [root / name for root, name in itertools.product(roots, _IMAGE_FOLDERS)]
    zips = [root / name for root, name in itertools.product(roots, _IMAGE_ZIPS)]
    for folder in folders:
        if _holds_images(folder):
            return ImageFolder(folder)
    for file in zips:
        if file.is_file():
            return ImageZip(file)
    return ImageFolder(roots[0]) if _holds_images(roots[0]) else None


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and next(ImageFolder(folder).images(), None) is not None


def _find_annotations(roots: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part, stem in ANNOTATION_FILES.items():
        for root, folder, suffix in itertools.product(roots, (".", "Anno", "Eval"), (".txt", ".csv")):
            if (file := root / folder / (stem + suffix)).is_file():
                found.setdefault(part, file)
    return found
