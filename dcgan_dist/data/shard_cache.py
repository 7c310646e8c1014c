"""Tars of a data set behind a URL, on this node's disk. Any number of processes share the folder, and any may die.

    <cache>/shards-<fingerprint>/
      manifest.json  *.idx           all of them
      celeba-train-000000.tar ...    whole and checked
      .celeba-train-000007.tar.part  being fetched by whoever holds its lock; if nobody does, the next goes on with it
      .wanted.<process>              which tars a process is about to read; locked as long as it lives

Locks are the system's (flock): they end with their process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

import numpy as np

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import lock_if_free, temporary_name
from dcgan_dist.base.urls import Remote, cache_home, is_url
from dcgan_dist.config import DataConfig
from dcgan_dist.data.shard_format import (
    Manifest,
    Shard,
    ShardError,
    check_shard,
    file_sha256,
    index_name,
    write_manifest,
)

POLL_SECONDS = 0.05
TIMES_FETCHED = 3  # a tar whose checksum is wrong may have been spoiled on the way
NOT_SOON, SOON, NOW = 0, 1, 2


def shard_folder(config: DataConfig, manifest: Manifest) -> Path:
    """The local folder of a data set: its own, or where its files are kept if it lies behind a URL."""
    if not is_url(config.shards):
        return Path(config.shards)
    return (Path(config.cache_dir) if config.cache_dir else cache_home()) / f"shards-{manifest.fingerprint[:16]}"


class ShardCache:
    """Fetches tars when they are asked for, once for all processes of the node; threads may share it."""

    def __init__(self, remote: Remote, manifest: Manifest, folder: Path, limit_bytes: int | None) -> None:
        """Raises ShardError if a tar does not fit into `limit_bytes`, UserError, and OSError as the disk does."""
        self.remote, self.manifest, self.folder = remote, manifest, folder
        folder.mkdir(parents=True, exist_ok=True)
        self._numbers = {shard.file: number for number, shard in enumerate(manifest.shards)}
        self._wishes = np.zeros((3, len(manifest.shards)), dtype=np.int64)  # how many readers want a tar so soon
        self._wishes_lock = threading.Lock()
        with self._locked():
            write_manifest(folder, manifest)
            self._fetch_indices()
            self._room = self._room_for_tars(limit_bytes)
            self._wanted = self._open_wanted() if self._room is not None else None
            self._make_room(0)  # the limit may have been higher before

    @property
    def is_limited(self) -> bool:
        """Whether not all tars can stay."""
        return self._room is not None

    def path(self, number: int, while_waiting: Callable[[], None] = lambda: None) -> Path:
        """A tar, fetched and checked if it is not there yet. If room is short, it stays as long as it is wanted NOW.

        `while_waiting` may raise. Raises UserError where it cannot be had, and OSError as the disk does.
        """
        shard = self.manifest.shards[number]
        path = self.folder / shard.file
        while not path.exists():
            part = self._claim(shard)
            if part is None:  # another fetches it, or must first let go of what takes the room
                while_waiting()
                time.sleep(POLL_SECONDS)
            else:
                with part:
                    self._fetch(shard, part)
        return path

    def want(self, numbers: list[int], urgency: int, change: int = 1) -> None:
        """Says that one reader more (or, with -1, less) wants these tars NOW or SOON."""
        if self._wanted is None:
            return
        with self._wishes_lock:
            np.add.at(self._wishes[urgency], numbers, change)
            told = np.where(self._wishes[NOW] > 0, NOW, np.where(self._wishes[SOON] > 0, SOON, NOT_SOON))
            os.pwrite(self._wanted.fileno(), told.astype(np.uint8).tobytes(), 0)

    def throw_out_if_damaged(self, number: int) -> None:
        """Reads a tar that is there from an earlier time, and removes it if its bytes are not the manifest's."""
        shard = self.manifest.shards[number]
        if (self.folder / shard.file).exists():
            try:
                check_shard(self.folder, shard)
            except ShardError:
                (self.folder / shard.file).unlink(missing_ok=True)

    # --- fetching -----------------------------------------------------------------------------------------------------

    def _fetch_indices(self) -> None:
        for shard in self.manifest.shards:
            path = self.folder / index_name(shard.file)
            if path.exists() and file_sha256(path) == shard.index_sha256:
                continue
            temporary_name(path).write_bytes(self.remote.read(path.name) or b"")
            if file_sha256(temporary_name(path)) != shard.index_sha256:
                raise self._damaged(path.name)
            temporary_name(path).replace(path)

    def _claim(self, shard: Shard) -> IO[bytes] | None:
        """The begun file of a tar, locked; None if it is whole, another's, or there is no room for it yet."""
        path, part = self.folder / shard.file, self._part(shard)
        with self._locked():
            if path.exists() or not (part.exists() or self._make_room(shard.bytes)):
                return None
            file = part.open("ab")
            if not lock_if_free(file):
                file.close()
                return None
            if path.exists():  # its owner was just done
                part.unlink()
                file.close()
                return None
            return file

    def _fetch(self, shard: Shard, file: IO[bytes]) -> None:
        part, size = self._part(shard), self.remote.size(shard.file)
        if size != shard.bytes:
            what = "missing" if size is None else f"{size} bytes long, and the manifest says {shard.bytes}"
            part.unlink()
            raise ShardError(
                f"{self.remote.url}/{shard.file}: {what}; see: python -m data_prep.verify {self.remote.url}"
            )
        for _ in range(TIMES_FETCHED):
            try:
                self.remote.fetch(shard.file, shard.bytes, file)
                file.flush()
            except OSError as error:
                advice = "make room, or set --data.cache_dir or --data.cache_limit_gib"
                raise UserError(f"{part}: cannot be written ({error.strerror}); {advice}") from None
            if file_sha256(part) == shard.sha256:
                os.fsync(file.fileno())
                part.replace(self.folder / shard.file)
                return
            file.truncate(0)
            file.seek(0)
        part.unlink()
        raise self._damaged(shard.file)

    def _damaged(self, name: str) -> ShardError:
        where = f"{self.remote.url}/{name}"
        advice = f"see: python -m data_prep.verify {self.remote.url}"
        return ShardError(f"{where}: damaged at its source, its SHA-256 is not the manifest's; {advice}")

    def _part(self, shard: Shard) -> Path:
        return self.folder / f".{shard.file}.part"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Keeps all other threads and processes from beginning or removing files meanwhile."""
        with (self.folder / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    # --- room ---------------------------------------------------------------------------------------------------------

    def _room_for_tars(self, limit_bytes: int | None) -> int | None:
        """What is left of the limit beside manifest and indices; None if all tars fit."""
        if limit_bytes is None:
            return None
        small = sum(path.stat().st_size for path in self.folder.iterdir() if path.suffix in (".idx", ".json"))
        room, largest = limit_bytes - small, max(shard.bytes for shard in self.manifest.shards)
        if room < largest:
            raise ShardError(
                f"data.cache_limit_gib = {limit_bytes / 2**30:g}: a tar of {self.remote.url} and the indices take "
                f"{(largest + small) / 2**30:.4g} GiB; allow at least that, or better several times as much"
            )
        return room if room < sum(shard.bytes for shard in self.manifest.shards) else None

    def _make_room(self, new_bytes: int) -> bool:
        """Throws out what is needed last until so much more fits; False if what is needed now leaves no room."""
        if self._room is None:
            return True
        there = [shard for shard in self.manifest.shards if self._is_there(shard)]
        used = sum(shard.bytes for shard in there) + new_bytes
        wanted = self._wanted_by_anyone()
        for shard in sorted(there, key=lambda shard: wanted[self._numbers[shard.file]]):
            if used <= self._room or wanted[self._numbers[shard.file]] == NOW:
                break
            if self._remove(shard):
                used -= shard.bytes
        return used <= self._room

    def _is_there(self, shard: Shard) -> bool:
        return (self.folder / shard.file).exists() or self._part(shard).exists()

    def _remove(self, shard: Shard) -> bool:
        """Removes a tar, or the begun file of one that nobody fetches any more; False if somebody does."""
        (self.folder / shard.file).unlink(missing_ok=True)
        if (part := self._part(shard)).exists():
            with part.open("ab") as file:
                if not lock_if_free(file):
                    return False
                part.unlink(missing_ok=True)
        return True

    def _open_wanted(self) -> IO[bytes]:
        """This process's list of what it wants, which counts as long as it is locked."""
        path = self.folder / f".wanted.{os.getpid()}.{id(self)}"
        file = path.open("w+b", buffering=0)
        file.write(bytes(len(self.manifest.shards)))
        fcntl.flock(file, fcntl.LOCK_EX)
        return file

    def _wanted_by_anyone(self) -> np.ndarray:
        """How urgently each tar is wanted: uint8 [shards]. Removes the lists of processes that are gone."""
        urgency = np.zeros(len(self.manifest.shards), dtype=np.uint8)
        for path in self.folder.glob(".wanted.*"):
            with path.open("r+b") as file:
                if lock_if_free(file):
                    path.unlink(missing_ok=True)
                else:
                    np.maximum(urgency, np.frombuffer(file.read(), dtype=np.uint8), out=urgency)
        return urgency
