"""An LMDB as LSUN's: every value is an image file, every key its name."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.entries import DamagedImage, Entry
from dcgan_dist.base.errors import UserError, in_one_line


@dataclass(frozen=True)
class LmdbOfImages:
    """Images in the folder of an LMDB (data.mdb)."""

    path: Path

    def entries(self) -> Iterator[Entry]:
        """All images. Raises UserError if the data base or the package `lmdb` cannot be used."""
        for key, size in _keys(self.path):
            where = () if key.isascii() else (key,)
            yield Entry(key.decode("ascii", errors="backslashreplace"), "", "", size, where)

    def read(self, entry: Entry) -> bytes:
        """The value. Raises DamagedImage if it is gone."""
        with _opened(self.path).begin(buffers=False) as transaction:
            value = transaction.get(entry.where[0] if entry.where else entry.name.encode())
        if value is None:
            raise DamagedImage("it is not in the data base any more")
        return value

    def annotations(self, entry: Entry) -> dict[str, Any]:
        """An LMDB of LSUN knows nothing but images."""
        return {}


def _keys(path: Path) -> Iterator[tuple[bytes, int]]:
    import lmdb

    try:
        with _opened(path).begin(buffers=True) as transaction:
            for key, value in transaction.cursor():
                yield bytes(key), len(value)
    except lmdb.Error as error:
        raise UserError(f"{path}: cannot be read as an LMDB ({in_one_line(error, 120)})") from None


@functools.cache
def _opened(path: Path) -> Any:
    """The data base, opened once in each process."""
    try:
        import lmdb
    except ImportError:
        raise UserError(
            f"{path}: is an LMDB, which the package lmdb reads: pip install -c constraints.txt -e '.[sources]'"
        ) from None
    try:
        return lmdb.open(str(path), readonly=True, lock=False, readahead=False, max_readers=512)
    except lmdb.Error as error:
        raise UserError(f"{path}: cannot be read as an LMDB ({in_one_line(error, 120)})") from None
