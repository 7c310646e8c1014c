"""A clock for the time in which a training loop has no batch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from typing import TypeVar

Batch = TypeVar("Batch")


class Waiting:
    """Seconds spent waiting for data."""

    def __init__(self) -> None:
        self.seconds = 0.0

    @contextlib.contextmanager
    def meanwhile(self) -> Iterator[None]:
        """Counts the block."""
        start = time.perf_counter()
        yield
        self.seconds += time.perf_counter() - start

    def around(self, batches: Iterable[Batch]) -> Iterator[Batch]:
        """The same batches; counts what each of them takes to come."""
        iterator = iter(batches)
        while True:
            try:
                with self.meanwhile():
                    batch = next(iterator)
            except StopIteration:
                return
            yield batch
