"""The folder of a run: the paths of its files, and its status."""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

from dcgan_dist.base.errors import UserError, is_restart
from dcgan_dist.base.files import append_row, keep_rows, read_rows, write_text
from dcgan_dist.base.waiting import waiting_line
from dcgan_dist.run.retention import checkpoint_name

Status = Literal["running", "done", "preempted", "failed"]

log = logging.getLogger(__name__)

RESTART_PATIENCE_SECONDS = 180.0  # less than the 300 for which the other ranks wait meanwhile

_held: dict[Path, BinaryIO] = {}  # locked until the process ends, however it ends


@dataclass(frozen=True)
class RunFolder:
    """Paths inside one run folder. Only rank 0 writes there."""

    path: Path

    @property
    def stop_file(self) -> Path:
        """A file that asks the run to stop."""
        return self.path / "STOP"

    @property
    def metrics(self) -> Path:
        """One JSON object a line."""
        return self.path / "metrics.jsonl"

    @property
    def scores(self) -> Path:
        """Every score with its protocol, one JSON object a line."""
        return self.path / "scores.jsonl"

    @property
    def events(self) -> Path:
        """Starts, stops, warnings and rollbacks, one JSON object a line."""
        return self.path / "events.jsonl"

    @property
    def checkpoints(self) -> Path:
        """Folder of `<images_seen>.pt`."""
        return self.path / "checkpoints"

    def checkpoint(self, images_seen: int) -> Path:
        """The checkpoint of this moment."""
        return self.checkpoints / checkpoint_name(images_seen)

    @property
    def real_grid(self) -> Path:
        """The first images of the data, to compare the samples with."""
        return self.path / "samples" / "real.png"

    @property
    def profile(self) -> Path:
        """Folder of the ranks' traces."""
        return self.path / "profile"

    @property
    def curves(self) -> Path:
        """Every figure over the run, as a picture."""
        return self.path / "curves.png"

    @property
    def environment(self) -> Path:
        """Versions, hardware, ranks and data of the newest start."""
        return self.path / "environment.json"

    @property
    def report(self) -> Path:
        """The run on one page, to look at and to pass on."""
        return self.path / "report.html"

    def grid(self, images_seen: int) -> Path:
        """The fixed-latent grid drawn at `images_seen`."""
        return self.path / "samples" / f"{images_seen:09d}.png"

    def ema_grid(self, images_seen: int) -> Path:
        """The fixed-latent grid drawn by the generator's average at `images_seen`."""
        return self.path / "samples" / "ema" / f"{images_seen:09d}.png"

    def create(self, config_yaml: str) -> None:
        """Creates the folder, locks it for this process, and writes the resolved configuration into it.

        Raises UserError if that cannot be, or if another process trains in it.
        """
        try:
            for folder in (self.checkpoints, self.ema_grid(0).parent):
                folder.mkdir(parents=True, exist_ok=True)
            self.lock()
            self._delete_half_written()
            write_text(self.path / "config.yaml", config_yaml)
        except OSError as error:
            raise UserError(
                f"run.dir = {self.path}: cannot be written ({error.strerror}); choose another folder"
            ) from None

    def lock(self) -> None:
        """Locks the folder for this process, until it ends. Raises UserError if another trains in it, and OSError."""
        path = self.path / ".lock"
        if path in _held:
            return
        file = path.open("ab")
        # A rank of the start before may still be ending, or a dead node's lock may not have expired.
        if not _lock_within(file, RESTART_PATIENCE_SECONDS if is_restart() else 0.0):
            raise UserError(
                f"run.dir = {self.path}: another process is training there; wait for it, or choose another folder"
            )
        _held[path] = file

    def _delete_half_written(self) -> None:
        """Deletes temporary files left by a process that was killed."""
        for folder in {self.path, self.checkpoints, self.grid(0).parent, self.ema_grid(0).parent}:
            for path in folder.glob(".*.tmp"):
                with contextlib.suppress(OSError):
                    path.unlink()

    def seconds(self) -> dict[str, float]:
        """Where the time of the newest start went, by stage, as status.json tells it; empty if it does not."""
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            return dict(json.loads((self.path / "status.json").read_text())["seconds"])
        return {}

    def write_environment(self, environment: dict[str, Any]) -> None:
        """Writes environment.json: where and with what the run trains."""
        write_text(self.environment, json.dumps(environment, indent=1) + "\n")

    def try_write_status(
        self,
        status: Status,
        images_seen: int,
        reason: str,
        warnings: Mapping[str, str],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Like `write_status`, but a full disk does not stop the run."""
        with contextlib.suppress(OSError):
            self.write_status(status, images_seen, reason, warnings, seconds)

    def write_status(
        self,
        status: Status,
        images_seen: int,
        reason: str,
        warnings: Mapping[str, str],
        seconds: Mapping[str, float] | None = None,
    ) -> None:
        """Writes status.json: the state of the run, for people, scripts and schedulers.

        `warnings`: the signs of collapse that have not gone, kind and text. `seconds`: where the time of this start
        went, by stage.
        """
        content = {
            "status": status,
            "images_seen": images_seen,
            "reason": reason,
            "warnings": list(warnings),
            "warning_texts": dict(warnings),
            "seconds": dict(seconds or {}),
            "updated": time.time(),
        }
        write_text(self.path / "status.json", json.dumps(content) + "\n")


def _lock_within(file: BinaryIO, seconds: float) -> bool:
    """Whether a file could be locked within `seconds`; yes on network file systems that know no locks."""
    deadline, told = time.monotonic() + seconds, False
    with contextlib.suppress(OSError):
        while not _try_lock(file):
            if time.monotonic() >= deadline:
                return False
            if not told:
                what = f"the end of another process, which still holds {file.name},"
                log.warning("%s", waiting_line(what, time.time(), seconds))
            told = True
            time.sleep(1)
    return True


def _try_lock(file: BinaryIO) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


Kind = Literal["start", "resume", "preempted", "done", "failed", "warning", "rollback", "pixels"]


def note_event(path: Path, images_seen: int, kind: Kind, text: str) -> None:
    """Appends an event; logs a failed write instead of raising."""
    try:
        append_row(path, {"time": round(time.time(), 3), "images_seen": images_seen, "kind": kind, "text": text})
    except OSError as error:
        log.warning("could not note in %s that: %s (%s)", path, text, error)


def forget_warnings_after(path: Path, images_seen: int) -> None:
    """Drops the warnings to which a run that goes on at `images_seen` will come again.

    Those before a rollback are history like everything else: they led to it.
    """
    rows = read_rows(path)
    last_rollback = max((number for number, row in enumerate(rows) if row.get("kind") == "rollback"), default=-1)
    again = [row for row in rows[last_rollback + 1 :] if _is_warning_after(row, images_seen)]
    if again:
        keep_rows(path, lambda row: row not in again)


def _is_warning_after(row: dict[str, Any], images_seen: int) -> bool:
    return row.get("kind") == "warning" and row.get("images_seen", 0) > images_seen
