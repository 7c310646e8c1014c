"""What every source of images offers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class DamagedImage(Exception):
    """One image whose bytes cannot be had or decoded; the message says why."""


class Entry(NamedTuple):
    """One image of a source."""

    name: str
    """What people call it: its path inside the source."""
    label: str = ""
    """Its class, if there are classes."""
    split: str = ""
    """train, valid or test, where the source says so."""
    size: int = 0
    """Bytes, where the source knows without reading."""
    where: tuple[Any, ...] = ()
    """Where the source finds it again."""


class ImageSource(Protocol):
    """Images that can be read in any order, by any process: an object of few bytes that can be pickled."""

    @property
    def path(self) -> Path:
        """Where they are."""
        ...

    def entries(self) -> Iterator[Entry]:
        """All images, in no particular order. Raises UserError where the source is bad."""
        ...

    def read(self, entry: Any) -> bytes:
        """The bytes of an image file. Raises DamagedImage, and OSError."""
        ...

    def annotations(self, entry: Any) -> dict[str, Any]:
        """What is known of an image beside its name and class, as JSON can say it. Raises DamagedImage, and OSError."""
        ...
