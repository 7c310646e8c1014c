"""JPEGs that are not as they should be, and what preparation and both decoders make of them.

    python -m tests.odd_jpegs --count 20000 [--seed 0]

changes bytes of JPEGs at random, puts each through the preparation's check, and what that accepts through both
decoders; prints how many were accepted and the largest difference, and ends 1 if a decoder refuses one or they differ.
"""

from __future__ import annotations

import argparse
import random
import struct
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from data_prep.packing.stored_form import Form, store
from data_prep.sources.entries import DamagedImage
from dcgan_dist.base.errors import in_one_line
from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.mapped_shards import MappedShards
from tests.shard_folders import jpeg, write_shards

SIZE, BATCH, ROUND = 64, 50, 500
CPU = torch.device("cpu")


def prepared(content: bytes) -> tuple[str, bytes]:
    """What the preparation stores of a JPEG: extension and bytes. Raises DamagedImage."""
    stored = store(content, Form(as_seen=False))
    return stored.extension, stored.content


def segments(content: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """The segments up to the first scan's header, each (marker, content), and the bytes after it."""
    found, position = [], 2
    while not found or found[-1][0] != 0xDA:
        marker, length = content[position + 1], int.from_bytes(content[position + 2 : position + 4], "big")
        found.append((marker, content[position + 4 : position + 2 + length]))
        position += 2 + length
    return found, content[position:]


def joined(parts: list[tuple[int, bytes]], rest: bytes, before: dict[int, bytes] | None = None) -> bytes:
    """The reverse; `before`: bytes that stand where none should, in front of the first segment of a marker."""
    text, strays = b"\xff\xd8", dict(before or {})
    for marker, content in parts:
        text += strays.pop(marker, b"") + bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content
    return text + rest


def with_strays(content: bytes, marker: int, stray: bytes) -> bytes:
    """The JPEG with bytes before its first segment of that kind: libjpeg passes over them."""
    return joined(*segments(content), {marker: stray})


def coloured(mode: str, jfif: bool, adobe: int | None, ids: bytes, seed: int = 0, **options: Any) -> bytes:
    """A JPEG of a mode (L, RGB, CMYK) with or without JFIF's and Adobe's markers, its components named by `ids`."""
    parts, rest = segments(jpeg(64, 48, mode, seed, **({} if mode == "CMYK" else options)))
    head = [(0xE0, b"JFIF\0\1\1\0\0\1\0\1\0\0")] if jfif else []
    head += [(0xEE, b"Adobe" + struct.pack(">HHHB", 100, 0, 0, adobe))] if adobe is not None else []
    body = []
    for marker, content in parts:
        if marker in (0xC0, 0xC2, 0xDA):
            named, first, step = bytearray(content), *((1, 2) if marker == 0xDA else (6, 3))
            for number in range(named[first - 1]):
                named[first + number * step] = ids[number]
            content = bytes(named)
        if marker not in (0xE0, 0xEE):
            body.append((marker, content))
    return joined(head + body, rest)


def ordinary() -> list[bytes]:
    """JPEGs as cameras, Pillow and CelebA have them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    options: list[dict[str, Any]] = [
        {}, {"subsampling": 0}, {"subsampling": 1}, {"progressive": True}, {"optimize": True}, {"quality": 30},
        {"restart_marker_blocks": 3}, {"exif": exif}, {"comment": b"a face"}, {"progressive": True, "subsampling": 0},
    ]  # fmt: skip
    made = [jpeg(218, 178, seed=seed, **some) for seed, some in enumerate(options)]
    return [*made, jpeg(64, 48, "L"), jpeg(17, 33), jpeg(218, 178, seed=20) + b"more after the end"]


def mutated(content: bytes, chance: random.Random) -> bytes:
    """The JPEG with one to four random changes of one kind, half of the time in its first 700 bytes."""
    changed = bytearray(content)
    kind = chance.choice(("flip", "byte", "insert", "delete", "cut", "swap", "repeat"))
    for _ in range(chance.choice((1, 1, 1, 2, 4))):
        end = min(len(changed), 700) if chance.random() < 0.5 else len(changed)
        if end < 8:
            break
        place = chance.randrange(2, end)
        if kind == "flip":
            changed[place] ^= 1 << chance.randrange(8)
        elif kind == "byte":
            changed[place] = chance.randrange(256)
        elif kind == "insert":
            changed[place:place] = bytes(
                chance.choice((0, 255, chance.randrange(256))) for _ in range(chance.choice((1, 4)))
            )
        elif kind == "delete":
            del changed[place : place + chance.choice((1, 1, 2, 8))]
        elif kind == "cut":
            del changed[place:]
        elif kind == "swap":
            other = chance.randrange(2, end)
            changed[place], changed[other] = changed[other], changed[place]
        else:
            changed[place:place] = changed[place : place + chance.randrange(1, 40)]
    return bytes(changed)


@dataclass
class Outcome:
    """What became of the images of a trial."""

    tried: int = 0
    accepted: int = 0
    as_png: int = 0
    largest: int = 0
    """The largest difference between the decoders, of 255."""
    problems: list[str] = field(default_factory=list)


def disagreement(folder: Path, stored: dict[str, bytes]) -> int:
    """The largest difference between both decoders over stored images. Raises ShardError where one refuses any."""
    shards = write_shards(folder, stored)
    largest = 0
    for one, other in zip(
        *(_decoded(shards, decode) for decode in (decode_with_dali, decode_with_pillow)), strict=True
    ):
        largest = max(largest, int(np.abs(one.astype(int) - other.astype(int)).max()))
    return largest


def _decoded(shards: MappedShards, decode: Any) -> Iterator[np.ndarray]:
    ids = range(len(shards))
    batches = [ids[start : start + BATCH] for start in range(0, len(shards), BATCH)]
    return (pixels.numpy() for pixels in decode(shards, batches, size=SIZE, crop="squash", device=CPU, threads=2))


def trial(count: int, seed: int, folder: Path) -> Outcome:
    """Puts `count` changed JPEGs through preparation and decoders."""
    chance, sources, outcome = random.Random(seed), ordinary(), Outcome()
    while outcome.tried < count:
        stored: dict[str, bytes] = {}
        for _ in range(min(ROUND, count - outcome.tried)):
            outcome.tried += 1
            try:
                extension, content = prepared(mutated(chance.choice(sources), chance))
            except DamagedImage:
                continue
            outcome.as_png += extension == "png"
            stored[f"{outcome.tried:06d}"] = content
        outcome.accepted += len(stored)
        try:
            outcome.largest = max(outcome.largest, disagreement(folder / str(outcome.tried), stored))
        except Exception as error:
            outcome.problems.append(in_one_line(error))
    return outcome


def main() -> int:
    """Runs the trial that the command line asks for; the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.odd_jpegs")
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = trial(given.count, given.seed, Path(folder))
    print(
        f"{outcome.tried} changed JPEGs: {outcome.accepted} accepted, {outcome.as_png} of them stored as PNG; "
        f"the decoders differ by {outcome.largest}/255 at most"
    )
    print(*outcome.problems, sep="\n")
    return 1 if outcome.problems or outcome.largest > 1 else 0


if __name__ == "__main__":
    sys.exit(main())
