"""Parquet as Hugging Face writes it: a column of images, and columns that say something about them.

Rows of Parquet come in groups, of which one row costs as much as all. So the images are first copied, group by group,
into one file beside the shards, which is removed in the end.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from data_prep.sources.entries import Entry
from dcgan_dist.base.errors import UserError, in_one_line

if TYPE_CHECKING:
    import pyarrow

USUAL_COLUMNS = ("image", "img", "jpg", "png", "webp", "picture", "photo")
CLASS_COLUMNS = ("label", "class", "cls")
_SPLIT = re.compile(r"(?:^|[/_.-])(train|validation|valid|val|dev|test)(?=[/_.-]|$)")
_SPLIT_NAMES = {"validation": "valid", "val": "valid", "dev": "valid"}
ROWS = 256  # that are taken at once


@dataclass(frozen=True)
class ParquetOfImages:
    """Images of Parquet files, copied into `copy`."""

    path: Path
    copy: Path
    image_key: str | None = None

    def entries(self) -> Iterator[Entry]:
        """All images, copied on the way. Raises UserError for a file that is no Parquet or holds no images, OSError."""
        files = sorted(self.path.rglob("*.parquet")) if self.path.is_dir() else [self.path]
        position = 0
        with self.copy.open("wb") as copy:
            for file in files:
                called = file.relative_to(self.path).as_posix() if self.path.is_dir() else file.name
                found = _SPLIT.search(called.lower())
                split = _SPLIT_NAMES.get(found[1], found[1]) if found else ""
                for number, (image, path, others) in enumerate(_rows(file, self.image_key)):
                    described = json.dumps(others, sort_keys=True).encode()
                    copy.write(image + described)
                    name = f"{called}/{number:08d}" + (f"/{path}" if path else "")
                    label = next((str(others[name]) for name in CLASS_COLUMNS if others.get(name) is not None), "")
                    yield Entry(name, label, split, len(image), (position, len(image), len(described)))
                    position += len(image) + len(described)

    def read(self, entry: Entry) -> bytes:
        """The image's bytes. Raises OSError."""
        position, size, _ = entry.where
        return self._bytes(position, size)

    def annotations(self, entry: Entry) -> dict[str, Any]:
        """The other columns. Raises OSError."""
        position, size, described = entry.where
        return json.loads(self._bytes(position + size, described))

    def _bytes(self, position: int, size: int) -> bytes:
        with self.copy.open("rb") as file:
            file.seek(position)
            return file.read(size)


def _rows(file: Path, image_key: str | None) -> Iterator[tuple[bytes, str, dict[str, Any]]]:
    """For each row the image's bytes, the path that it had, and the other columns that JSON can say."""
    try:
        import pyarrow
        from pyarrow import parquet
    except ImportError:
        raise UserError(
            f"{file}: is Parquet, which pyarrow reads: pip install -c constraints.txt -e '.[sources]'"
        ) from None
    try:
        with parquet.ParquetFile(file) as table:
            column = _image_column(file, table.schema_arrow, image_key)
            names = _names_of_classes(table.schema_arrow)
            for batch in table.iter_batches(ROWS):
                for row in batch.to_pylist():
                    image = row.pop(column)
                    image = image if isinstance(image, Mapping) else {"bytes": image}
                    if image.get("bytes") is None and image.get("path"):
                        raise UserError(
                            f"{file}: names the file {image['path']} in place of an image; give the folder of such "
                            "files as --source, or write the images into the Parquet (Hugging Face's push_to_hub does)"
                        )
                    others = {name: value for name, value in row.items() if _is_plain(value)}
                    for name, classes in names.items():
                        if isinstance(others.get(name), int) and 0 <= others[name] < len(classes):
                            others[name] = classes[others[name]]
                    yield image.get("bytes") or b"", image.get("path") or "", others
    except pyarrow.ArrowException as error:
        raise UserError(f"{file}: cannot be read as Parquet ({in_one_line(error, 120)}); download it again") from None


def _image_column(file: Path, schema: pyarrow.Schema, image_key: str | None) -> str:
    """The column of images: the one that is asked for, or the only one of bytes, or one with a usual name."""
    from pyarrow import types

    def holds_bytes(kind: pyarrow.DataType) -> bool:
        if types.is_struct(kind):
            return any(field.name == "bytes" for field in kind)
        return types.is_binary(kind) or types.is_large_binary(kind)

    columns = [field.name for field in schema if holds_bytes(field.type)]
    if image_key is not None:
        if image_key not in columns:
            raise UserError(
                f"{file}: --image-key {image_key}: no column of images; there are: {', '.join(columns) or 'none'}"
            )
        return image_key
    usual = [name for name in USUAL_COLUMNS if name in columns]
    if len(columns) == 1 or usual:
        return usual[0] if usual else columns[0]
    many = (
        f"has several columns of bytes ({', '.join(columns)}); say which: --image-key {columns[0]}" if columns else ""
    )
    raise UserError(f"{file}: " + (many or f"has no column of images, only {', '.join(schema.names)}"))


def _names_of_classes(schema: pyarrow.Schema) -> dict[str, list[str]]:
    """The names behind the numbers of a column of classes, as Hugging Face keeps them in the schema's metadata."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
    except (KeyError, ValueError, TypeError):
        return {}
    return {
        name: [str(one) for one in feature["names"]]
        for name, feature in features.items()
        if isinstance(feature, dict) and isinstance(feature.get("names"), list)
    }


def _is_plain(value: object) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(one) for one in value)
    if isinstance(value, dict):
        return all(isinstance(name, str) and _is_plain(one) for name, one in value.items())
    return value is None or isinstance(value, (str, int, float, bool))
