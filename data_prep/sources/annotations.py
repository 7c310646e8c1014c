"""CelebA's annotation files, official or Kaggle's, as tables of text, and each row as JSON.

Rows stay in their files until a worker needs them: all 202,599 of them as text would take a quarter of a gigabyte.
"""

from __future__ import annotations

import itertools
import json
from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import BinaryIO

from data_prep.sources.downloads import looks_like_html
from dcgan_dist.base.errors import UserError

ANNOTATION_FILES = {
    "attributes": "list_attr_celeba",
    "partition": "list_eval_partition",
    "identity": "identity_CelebA",
    "landmarks": "list_landmarks_align_celeba",
    "bbox": "list_bbox_celeba",
}
SPLITS = {"0": "train", "1": "valid", "2": "test"}

_JSON_OF_ATTRIBUTE = {b"1": b"true", b"-1": b"false", b"0": b"false"}  # some copies write 0 for -1
_HEADERLESS = ("partition", "identity")  # among the .txt files; the others start with a count and a header


@dataclass(frozen=True)
class Table:
    """One annotation file: where in it the row of each of some images begins, in bytes."""

    part: str
    """A key of ANNOTATION_FILES."""
    file: Path
    columns: tuple[str, ...]
    places: array[int]

    def only(self, numbers: Iterable[int]) -> Table:
        """The same table of fewer images, by their numbers in this one."""
        return replace(self, places=array(self.places.typecode, map(self.places.__getitem__, numbers)))

    def rows(self) -> Iterator[list[bytes]]:
        """The words of each image's row, its name and its values. Raises OSError."""
        blank = _separator(self.file)
        return (line.replace(blank, b" ").split() for line in self._lines())

    def names(self) -> Iterator[str]:
        """The names of the images. Raises OSError, and UnicodeDecodeError."""
        separator = _separator(self.file)
        return (line.partition(separator)[0].decode() for line in self._lines())

    def _lines(self) -> Iterator[bytes]:
        with self.file.open("rb") as file:
            for place in self.places:
                file.seek(place)
                yield file.readline()

    def in_order(self) -> Table:
        """The same table, sorted by name. Raises ValueError if an image is in it twice."""
        if all(one < other for one, other in itertools.pairwise(self.names())):
            return self  # as all that are distributed are
        names = list(self.names())
        if twice := len(names) - len(set(names)):
            raise ValueError(f"lists {twice} images twice")
        return self.only(sorted(range(len(names)), key=names.__getitem__))

    def as_json(self) -> list[bytes]:
        """For each image its part of the sample's JSON. Raises UserError for a row that is malformed, and OSError.

        Filling in a template takes a fraction of the time of building a dictionary and dumping it.
        """
        template = _json_template(self.part, self.columns)
        return [self._fill(template, row) for row in self.rows()]

    def _fill(self, template: bytes, row: list[bytes]) -> bytes:
        try:
            return template % _json_values(self.part, row[1:])
        except (ValueError, LookupError, TypeError):
            name, values = row[0].decode(), b" ".join(row[1:]).decode(errors="replace")
            raise UserError(f"{self.file.name}: the row of {name} is malformed: {values[:60]!r}") from None


def read_table(part: str, path: Path) -> Table:
    """Finds the rows of an annotation file of either format; `part` is a key of ANNOTATION_FILES.

    Returns the table, sorted by the names of the images. Raises UserError naming the file where it is not what its name
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
            kind = "I" if path.stat().st_size < 1 << 32 else "Q"
            table = Table(part, path, columns, array(kind, _find_rows(file, _separator(path)))).in_order()
    except UnicodeDecodeError:
        raise UserError(f"{path}: is not a text file; download it again") from None
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise UserError(f"{path}: {error}; download it again") from None
    if not table.places:
        raise UserError(f"{path}: holds no rows; download it again")
    if count not in (None, len(table.places)):
        raise UserError(f"{path}: says that it has {count} rows and has {len(table.places)}; download it again")
    return table


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


def _find_rows(file: BinaryIO, separator: bytes) -> Iterator[int]:
    """Where the rows begin, in bytes. ValueError for a line that is no row."""
    place = file.tell()
    for line in file:
        if separator in line:
            yield place
        elif line.strip():
            alone = line.decode().strip()[:60]
            raise ValueError(f"the line {alone!r} should hold the name of an image and its values")
        place += len(line)


def _json_template(part: str, columns: tuple[str, ...]) -> bytes:
    """JSON with a place for each value of a row."""
    if part == "partition":
        return b'"split":"%b"'
    if part == "identity":
        return b'"identity":%d'
    place = ":%b" if part == "attributes" else ":%d"
    names = [json.dumps(name).replace("%", "%%") for name in columns]
    return f'"{part}":{{{",".join(name + place for name in names)}}}'.encode()


def _json_values(part: str, row: list[bytes]) -> tuple[bytes, ...] | tuple[int, ...]:
    """A row's values as they go into the template. Raises ValueError or LookupError for one that cannot be."""
    if part == "attributes":
        return tuple([_JSON_OF_ATTRIBUTE[word] for word in row])
    if part == "partition":
        return (SPLITS[b" ".join(row).decode()].encode(),)
    return tuple(map(int, row))
