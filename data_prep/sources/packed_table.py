"""Millions of named rows in few bytes each."""

from __future__ import annotations

import copy
import heapq
import itertools
import marshal
from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

LARGEST_IN_FOUR_BYTES = (1 << 32) - 1
SORTED_AT_ONCE = 1 << 17  # rows; their names are text only so long

Row = TypeVar("Row", bound=tuple[Any, ...])


class PackedTable(Generic[Row]):
    """Tuples of one kind, whose first field is a name, sorted by it; each takes its text and about 16 bytes.

    As objects of Python they would take half a kilobyte each.
    """

    def __init__(self, kind: Callable[..., Row], rows: Iterable[Row]) -> None:
        self._kind = kind
        self._content = bytearray()
        self._ends = array("I")
        for row in rows:
            self._content += marshal.dumps(tuple(row))
            if len(self._content) > LARGEST_IN_FOUR_BYTES and self._ends.typecode == "I":
                self._ends = array("Q", self._ends)
            self._ends.append(len(self._content))
        self._order: Sequence[int] = range(len(self._ends))
        if not self._is_sorted():
            self._order = self._sorted()

    def __len__(self) -> int:
        return len(self._order)

    def __getitem__(self, number: int) -> Row:
        return self._kind(*self._unpacked(self._order[number]))

    def __iter__(self) -> Iterator[Row]:
        return (self._kind(*self._unpacked(place)) for place in self._order)

    def only(self, numbers: Iterable[int]) -> PackedTable[Row]:
        """The rows with these numbers, in this order; nothing is packed again."""
        table = copy.copy(self)
        table._order = array("I", (self._order[number] for number in numbers))
        return table

    def _is_sorted(self) -> bool:
        names = map(self._name, self._order)
        return all(one <= other for one, other in itertools.pairwise(names))

    def _sorted(self) -> array[int]:
        """The places in the order of the names, sorted piece by piece: all names as text would be ten times as much."""
        pieces = [
            array("I", sorted(self._order[start : start + SORTED_AT_ONCE], key=self._name))
            for start in range(0, len(self), SORTED_AT_ONCE)
        ]
        return array("I", heapq.merge(*pieces, key=self._name))

    def _name(self, place: int) -> str:
        return self._unpacked(place)[0]

    def _unpacked(self, place: int) -> tuple[Any, ...]:
        start = self._ends[place - 1] if place else 0
        return marshal.loads(memoryview(self._content)[start : self._ends[place]])
