"""CelebA's annotation files, official or Kaggle's, as tables of text, and each row as JSON.

Rows stay in their files until a worker needs them: all 202,599 of them as text would take a quarter of a gigabyte.
"""

from __future__ import annotations

import itertools
import json
import os
from array import array
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from data_prep.celeba_images import looks_like_html
from dcgan_dist.errors import UserError

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


@dataclass(frozen=True)
class Table:
    """One annotation file: where in it each image's row begins, in bytes and in the order of the sorted names."""

    file: Path
    columns: tuple[str, ...]
    places: array[int]

    def rows(self, numbers: Iterable[int]) -> list[str]:
        """The values of these images as text, one blank between two. Raises OSError."""
        separator = _separator(self.file)
        handle = os.open(self.file, os.O_RDONLY)  # `pread` takes half the time of seeking in an open file
        try:
            lines = [_line_at(handle, self.places[number]).partition(separator)[2] for number in numbers]
        finally:
            os.close(handle)
        return [_one_blank_between(line.replace(separator, b" ").decode(errors="replace")) for line in lines]


def read_table(part: str, path: Path) -> tuple[Table, list[str]]:
    """Finds the rows of an annotation file of either format; `part` is a key of ANNOTATION_FILES.

    Returns the table and the sorted names of its images. Raises UserError naming the file where it is not what its name
    says, or where its count is wrong.
    """
    try:
        with path.open("rb") as file:
            if looks_like_html(file.read(512)):
                page = "is a web page, not the annotations (Google Drive's quota page?); download it again"
                raise UserError(f"{path}: {page}")
            file.seek(0)
            if file.read(3) != b"\xef\xbb\xbf":  # a byte order mark
                file.seek(0)
            columns, count = _read_header(part, path, file)
            names, places = _find_rows(file, _separator(path))
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; download it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; download it again") from None
    if count not in (None, len(names)):
        raise UserError(f"{path}: says that it has {count} rows and has {len(names)}; download it again")
    return Table(path, columns, places), names


def _line_at(handle: int, place: int, size: int = 512) -> bytes:
    """The line of a file that begins at `place`; `size`: bytes in which it is likely to end."""
    piece = os.pread(handle, size, place)
    line, end, _ = piece.partition(b"\n")
    return line if end or len(piece) < size else _line_at(handle, place, 8 * size)


def _one_blank_between(values: str) -> str:
    while "  " in values:  # a third of the time of splitting and joining
        values = values.replace("  ", " ")
    return values.strip()


def _separator(path: Path) -> bytes:
    """What stands between a row's values: in Kaggle's format a comma, in the official one blanks."""
    return b"," if path.suffix == ".csv" else b" "


def _read_header(part: str, path: Path, file: BinaryIO) -> tuple[tuple[str, ...], int | None]:
    """The names of the columns and, in three of the official files, the number of rows. ValueError where it is bad."""
    if path.suffix == ".csv":
        first, *columns = file.readline().decode().strip().split(",")
        if first != "image_id" or not columns:
            raise ValueError("should start with a header line 'image_id,...'")
        return tuple(columns), None
    if part in _HEADERLESS:
        return (part,), None
    count, header = (file.readline().decode() for _ in range(2))
    columns = tuple(name for name in header.split() if name != "image_id")
    if not count.strip().isdecimal() or not columns:
        raise ValueError("should start with a line that holds the count and a line with the names of the columns")
    return columns, int(count)


def _find_rows(file: BinaryIO, separator: bytes) -> tuple[list[str], array[int]]:
    """The sorted names of the images and where their rows begin. ValueError for a line that is no row."""
    names: list[str] = []
    places = array("Q")
    place = file.tell()
    for line in file:
        name, found, _ = line.partition(separator)
        if found:
            names.append(name.decode())
            places.append(place)
        elif line.strip():
            alone = line.decode().strip()[:60]
            raise ValueError(f"the line {alone!r} should hold the name of an image and its values")
        place += len(line)
    if not names:
        raise ValueError("holds no rows")
    if any(one > other for one, other in itertools.pairwise(names)):
        order = sorted(range(len(names)), key=names.__getitem__)
        names, places = [names[number] for number in order], array("Q", [places[number] for number in order])
    if twice := sum(one == other for one, other in itertools.pairwise(names)):
        raise ValueError(f"lists {twice} images twice")
    return names, places


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
