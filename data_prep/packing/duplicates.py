"""Which images have the same bytes, by their checksums: 16 bytes an image."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator
from functools import partial

from data_prep.packing.engines import in_processes
from data_prep.packing.image_plan import ImagePlan
from data_prep.packing.shard_writer import DIGEST_BYTES, Record
from data_prep.sources.entries import DamagedImage, Entry, ImageSource
from data_prep.sources.packed_table import PackedTable
from dcgan_dist.base.waiting import progress_bar

HASHED_TOGETHER = 256

Twins = list[tuple[str, str]]
"""The name of an image and that of the first with the same bytes."""


def without_duplicates(source: ImageSource, entries: PackedTable[Entry], workers: int) -> PackedTable[Entry]:
    """Of images with the same bytes only the first by name."""
    digests = bytearray()
    walk = iter(entries)
    jobs = iter(lambda: list(itertools.islice(walk, HASHED_TOGETHER)), [])
    workers = min(workers, len(entries) // HASHED_TOGETHER + 1)
    with progress_bar("comparing", len(entries)) as advance:
        for batch in in_processes(partial(_digests, source), jobs, workers):
            digests += batch
            advance(len(batch) // DIGEST_BYTES)
    pairs = dict(find_twins(digests))
    if pairs:
        named = [(entries[number].name, entries[first].name) for number, first in pairs.items()]
        print(f"left out {len(named)} with the bytes of another: {in_words(named)}")
    return entries.only(number for number in range(len(entries)) if number not in pairs) if pairs else entries


def _digests(source: ImageSource, entries: list[Entry]) -> bytes:
    """A checksum of each image's bytes; zeros for one that cannot be read, which is told of later."""
    return b"".join(_digest(source, entry) for entry in entries)


def _digest(source: ImageSource, entry: Entry) -> bytes:
    try:
        return hashlib.sha256(source.read(entry)).digest()[:DIGEST_BYTES]
    except DamagedImage:
        return bytes(DIGEST_BYTES)


def twins_in(plan: ImagePlan, records: list[Record]) -> Twins:
    """Every packed image whose bytes are there before, in the order of the names."""
    digests = bytearray(DIGEST_BYTES * plan.samples)
    for tar_name, record in zip(plan.shards, records, strict=True):
        left_out = set(record.skipped)
        numbers = plan.order[plan.shards[tar_name]]
        kept = [number for number in numbers if plan.entries[number].name not in left_out] if left_out else numbers
        contents = bytes.fromhex(record.contents)  # a record of an older version may have none
        for number, start in zip(kept, range(0, len(contents), DIGEST_BYTES), strict=False):
            place = DIGEST_BYTES * number
            digests[place : place + DIGEST_BYTES] = contents[start : start + DIGEST_BYTES]
    return [(plan.entries[number].name, plan.entries[first].name) for number, first in find_twins(digests)]


def find_twins(digests: bytes | bytearray) -> Iterator[tuple[int, int]]:
    """(number, number of the first like it) of every image whose checksum is there before.

    `digests`: DIGEST_BYTES of each image; zeros are of one that has none.
    """
    import numpy as np

    halves = np.frombuffer(digests, np.uint64).reshape(-1, 2)
    order = np.lexsort((halves[:, 1], halves[:, 0]))  # stable: of equal ones the first stays the first
    ordered = halves[order]
    firsts: dict[int, int] = {}
    for place in np.flatnonzero((ordered[1:] == ordered[:-1]).all(1) & ordered[1:].any(1)):
        one, other = int(order[place]), int(order[place + 1])
        firsts[other] = firsts.get(one, one)
    return iter(sorted(firsts.items()))


def in_words(pairs: Twins) -> str:
    """The first few."""
    named = ", ".join(f"{name} (as {first})" for name, first in pairs[:3])
    return named + (", ..." if len(pairs) > 3 else "")
