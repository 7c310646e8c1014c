"""Decoded pixels of a folder of shards in one file, so that they are decoded once.

    pixels/short_side-64-1c0ffee1c0ffee12.pixels
        4,096 bytes   a line of JSON that says what the pixels are, filled up with blanks
        the pixels    uint8 [samples, size, size, 3], in the order of the shards
        checksums     CRC-32 of each 8 MiB of pixels, 4 bytes each, the lowest first

Shared by the trainer, which writes such files, and `data_prep`, which lists them. Standard library only.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import struct
import zlib
from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

from dcgan_dist.base.files import lock_if_free, sync_folder

FOLDER = "pixels"
"""Where the files lie in a folder of shards."""
SUFFIX = ".pixels"
FORMAT_VERSION = 1
HEADER_BYTES = 4096  # a page, so that mapped pixels begin at one
BLOCK_BYTES = 8 << 20
PIECE_BYTES = 16 * BLOCK_BYTES
"""What is written or checked at a time."""
BYTES_LEFT_FREE = 1 << 30
"""Room on the disk that is left to checkpoints and everything else."""


class DamagedPixels(Exception):
    """A pixel file that is not what its name says."""


@dataclass(frozen=True)
class PixelSet:
    """All that decides the bytes of the pixels, and what helps people to recognise them."""

    dataset: str
    split: str
    fingerprint: str
    """The manifest's."""
    samples: int
    size: int
    """Height and width of the images in pixels."""
    crop: str
    decoder: str
    """Name and version of the decoder, and the hardware it runs on if that makes a difference."""
    format_version: int = FORMAT_VERSION

    @property
    def header(self) -> bytes:
        """The first bytes of the file. Raises ValueError if they do not fit."""
        line = json.dumps(asdict(self), sort_keys=True).encode()
        if len(line) >= HEADER_BYTES:
            raise ValueError(f"{self.dataset!r} is too long a name")
        return line.ljust(HEADER_BYTES - 1) + b"\n"

    @property
    def file_name(self) -> str:
        """Name of the file, another one for every other set of pixels."""
        return f"{self.crop}-{self.size}-{hashlib.sha256(self.header).hexdigest()[:16]}{SUFFIX}"

    @property
    def pixel_bytes(self) -> int:
        """Bytes of the pixels alone."""
        return self.samples * self.size**2 * 3

    @property
    def blocks(self) -> int:
        """Number of checksums."""
        return -(-self.pixel_bytes // BLOCK_BYTES)

    @property
    def file_bytes(self) -> int:
        """Size of the whole file."""
        return HEADER_BYTES + self.pixel_bytes + 4 * self.blocks


def pixel_folder(shards: Path, cache_dir: str | None) -> Path:
    """Where the pixels of a folder of shards are kept; null: beside its shards."""
    return shards / FOLDER if cache_dir is None else Path(cache_dir)


# --- writing ----------------------------------------------------------------------------------------------------------


def write_pixel_file(path: Path, pixels: PixelSet, pieces: Iterable[memoryview]) -> Generator[None]:
    """Writes the file piece by piece, one for each item that is taken; it has its name after the last.

    All pieces but the last have PIECE_BYTES. Closed early, or after an error, nothing is left. Raises OSError as the
    file system does (full, read-only), and BlockingIOError if another process is writing the same file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with _held_alone(_temporary_name(path)) as file:
        if (free := shutil.disk_usage(path.parent).free) < pixels.file_bytes + BYTES_LEFT_FREE:
            needed = f"{pixels.file_bytes / 2**30:.2f} GiB are needed, {BYTES_LEFT_FREE >> 30} must stay free"
            raise OSError(errno.ENOSPC, f"{needed}, and {free / 2**30:.2f} are free", str(path.parent))
        file.write(pixels.header)
        checksums: list[int] = []
        for piece in pieces:
            checksums += [zlib.crc32(piece[start : start + BLOCK_BYTES]) for start in range(0, len(piece), BLOCK_BYTES)]
            file.write(piece)
            _sync(file)  # so that no single wait for the disk becomes long
            yield
        file.write(_packed(checksums))
        _sync(file)
        _temporary_name(path).replace(path)
        sync_folder(path.parent)


def _temporary_name(path: Path) -> Path:
    return path.with_name(f".{path.name}.tmp")


@contextlib.contextmanager
def _held_alone(temporary: Path) -> Iterator[IO[bytes]]:
    """The temporary file, empty and locked: what a killed process has left is used again. Removed after an error."""
    with temporary.open("ab") as file:
        try:
            locked = lock_if_free(file)
        except OSError as error:
            temporary.unlink(missing_ok=True)
            raise OSError(error.errno, f"cannot be locked, {error.strerror}", str(temporary)) from None
        if not locked or not _is_at(file, temporary):  # it may have been finished and renamed in between
            raise BlockingIOError(errno.EWOULDBLOCK, "another process is writing it", str(temporary))
        try:
            file.truncate(0)
            yield file
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise


def _is_at(file: IO[bytes], path: Path) -> bool:
    with contextlib.suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    return False


def _sync(file: IO[bytes]) -> None:
    file.flush()
    os.fsync(file.fileno())


def _packed(checksums: list[int]) -> bytes:
    return struct.pack(f"<{len(checksums)}I", *checksums)


# --- reading ----------------------------------------------------------------------------------------------------------


def check_pixel_file(path: Path, pixels: PixelSet, part: int, parts: int, threads: int) -> Generator[None]:
    """Reads every `parts`-th block, with as many threads, and compares its checksum; one piece for each item taken.

    Raises DamagedPixels, FileNotFoundError, and OSError as the file system does.
    """
    with path.open("rb") as file, ThreadPoolExecutor(threads) as pool:
        handle = file.fileno()
        if (size := os.fstat(handle).st_size) != pixels.file_bytes:
            raise DamagedPixels(f"{path}: has {size} bytes and not {pixels.file_bytes}")
        if os.pread(handle, HEADER_BYTES, 0) != pixels.header:
            raise DamagedPixels(f"{path}: its first line is not that of these pixels")
        checksums = os.pread(handle, 4 * pixels.blocks, HEADER_BYTES + pixels.pixel_bytes)

        def is_right(block: int) -> bool:
            start = block * BLOCK_BYTES
            content = os.pread(handle, min(BLOCK_BYTES, pixels.pixel_bytes - start), HEADER_BYTES + start)
            return _packed([zlib.crc32(content)]) == checksums[4 * block : 4 * block + 4]

        blocks = range(part, pixels.blocks, parts)
        for first in range(0, len(blocks), PIECE_BYTES // BLOCK_BYTES):
            piece = blocks[first : first + PIECE_BYTES // BLOCK_BYTES]
            for block, right in zip(piece, pool.map(is_right, piece), strict=True):
                if not right:
                    raise DamagedPixels(f"{path}: the checksum of block {block} is wrong")
            yield


@dataclass(frozen=True)
class FoundFile:
    """A file of pixels as it is found in a folder."""

    path: Path
    bytes: int
    pixels: PixelSet | None
    """What it says it holds; None if it is unfinished or damaged."""

    @property
    def is_being_written(self) -> bool:
        """Whether a process is writing it at this moment."""
        if self.path.suffix != ".tmp":
            return False
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            return not lock_if_free(file)
        return False


def list_pixel_files(folder: Path) -> list[FoundFile]:
    """The pixel files of a folder by name, whole and unfinished ones; none if it cannot be read."""
    found = []
    with contextlib.suppress(OSError):
        for path in sorted((*folder.glob(f"*{SUFFIX}"), *folder.glob(f".*{SUFFIX}.tmp"))):
            with contextlib.suppress(OSError):  # another process may have renamed or removed it
                found.append(FoundFile(path, path.stat().st_size, _read_header(path)))
    return found


def _read_header(path: Path) -> PixelSet | None:
    with path.open("rb") as file:
        line = file.read(HEADER_BYTES)
    with contextlib.suppress(ValueError, TypeError):
        pixels = PixelSet(**json.loads(line))
        if path.suffix == SUFFIX and line == pixels.header:
            return pixels
    return None
