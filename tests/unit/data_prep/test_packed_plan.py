"""The plan of millions of images: in order, and few bytes each."""

from __future__ import annotations

import random
import tracemalloc
from collections.abc import Iterator

import pytest

from data_prep.packing.duplicates import find_twins
from data_prep.packing.order import shuffled
from data_prep.sources import packed_table
from data_prep.sources.entries import Entry
from data_prep.sources.packed_table import PackedTable


def made_up(count: int) -> Iterator[Entry]:
    """In no order, each name once."""
    for place in range(count):
        number = place * 7919 % count
        yield Entry(f"class-{number % 50:03d}/image-{number:08d}.jpg", f"class-{number % 50:03d}", "", 100_000)


def test_rows_come_back_whole_and_sorted_by_name_also_beyond_one_piece(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_table, "SORTED_AT_ONCE", 7)
    odd = [Entry("\udce9.jpg", where=(b"\xe9", {"json": (1 << 40, 3)})), Entry("𝔘.png"), Entry("\ue000.png"), Entry("")]
    entries = [*made_up(50), *odd]
    table = PackedTable(Entry, entries)
    assert list(table) == sorted(entries, key=lambda entry: entry.name)
    chosen = table.only([5, 3, 40])
    assert [*chosen] == [table[5], table[3], table[40]] and len(chosen) == 3 and chosen[2] == table[40]


def test_places_beyond_four_gigabytes_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed_table, "LARGEST_IN_FOUR_BYTES", 1000)
    assert sorted(PackedTable(Entry, made_up(100))) == sorted(made_up(100))


def test_the_shuffle_is_that_of_earlier_versions() -> None:
    generator = random.Random(3)
    assert [*shuffled(1000, 3)] == sorted(range(1000), key=lambda _: generator.random())
    assert not shuffled(0, 3)


def test_twins_are_told_with_the_first_and_what_cannot_be_read_has_none() -> None:
    first, second, unread = b"a" * 16, b"a" * 8 + b"b" * 8, bytes(16)
    digests = b"".join((unread, first, second, first, unread, second, first))
    assert [*find_twins(digests)] == [(3, 1), (5, 2), (6, 1)]
    assert not [*find_twins(b"")]


def test_a_plan_takes_less_than_a_hundred_bytes_an_image() -> None:
    count = 100_003  # a prime number, as `made_up` would have it
    shuffled(10, 0)  # loads NumPy
    tracemalloc.start()
    table, order = PackedTable(Entry, made_up(count)), shuffled(count, 0)
    held = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(table) == len(order) == count
    assert held / count < 100
