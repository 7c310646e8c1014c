"""events.jsonl: what happened to a run besides training, one JSON object a line. Standard library only.

Each line has `time`, `images_seen`, `kind` and `text`; for the kinds see `Kind`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Any, Literal

from dcgan_dist.base.files import append_row, keep_rows, read_rows

log = logging.getLogger(__name__)

Kind = Literal["start", "resume", "preempted", "done", "failed", "warning", "rollback"]


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
