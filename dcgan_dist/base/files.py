"""Files that are either whole or absent, and files of one JSON object a line. Standard library only."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any


def temporary_name(path: Path) -> Path:
    """The name beside `path` under which this process writes it, and no other on any machine; `.tmp` is never read."""
    machine = os.uname().nodename.replace(".", "-")  # what stands after the last dot but one is this alone
    return path.with_name(f".{path.name}.{machine}-{os.getpid()}.tmp")


@contextlib.contextmanager
def atomic_write(path: Path) -> Iterator[IO[bytes]]:
    """Opens a file that takes the name `path` only if the block ends well and its bytes are on disk.

    Raises OSError as the file system does (full, read-only); nothing is left under either name then.
    """
    temporary = temporary_name(path)
    try:
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    sync_folder(path.parent)


def write_text(path: Path, text: str) -> None:
    """Writes `text` as UTF-8, all of it or nothing."""
    with atomic_write(path) as file:
        file.write(text.encode())


def sync_file(path: Path) -> None:
    """Flushes a file to disk so that it survives a power cut."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def sync_folder(folder: Path) -> None:
    """Flushes a folder to disk so that a rename inside it survives a power cut, where the file system supports it."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.EBADF):  # some network file systems sync no folders
            raise
    finally:
        os.close(handle)


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Reads the rows of a file in order, skipping what is not a JSON object, such as half a line.

    No rows if there is no file. Raises OSError if it cannot be read.
    """
    rows = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []:
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            rows.append(row)
    return rows


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Appends one row on a line of its own, even after a half-written line. Raises OSError as the file system does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end = file.tell()
        if end:
            file.seek(end - 1)
        torn = bool(end) and file.read(1) != b"\n"
        file.write((("\n" if torn else "") + json.dumps(row) + "\n").encode())


def keep_rows(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Drops the rows that are not `wanted`, replacing the file atomically and only if something changes."""
    rows = read_rows(path)
    kept = [row for row in rows if wanted(row)]
    if len(kept) < len(rows):
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))


def lock_if_free(file: IO[bytes]) -> bool:
    """Locks a file for as long as it is open, unless somebody else has (flock); returns whether it did.

    The lock ends with its process. Raises OSError on a network file system without locks.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
