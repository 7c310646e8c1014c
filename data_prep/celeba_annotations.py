"""CelebA's annotation files, official or Kaggle's, as tables of text, and each row as JSON.

Rows stay text until a worker needs them: all 202,599 of them as Python objects would take gigabytes.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

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
    if looks_like_html(text[:512].encode()):
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
