"""events.jsonl: what happened to a run besides training, one JSON object a line. Standard library only.

Each line has `time`, `images_seen`, `kind` and `text`; for the kinds see `Kind`.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Literal

from dcgan_dist.json_lines import append_row, keep_rows

log = logging.getLogger(__name__)

Kind = Literal["start", "resume", "preempted", "done", "failed", "warning", "rollback"]


def note_event(path: Path, images_seen: int, kind: Kind, text: str) -> None:
    """Adds a line. A disk that does not take it must not stop the run."""
    try:
        append_row(path, {"time": round(time.time(), 3), "images_seen": images_seen, "kind": kind, "text": text})
    except OSError as error:
        log.warning("could not note in %s that: %s (%s)", path, text, error)


def forget_warnings_after(path: Path, images_seen: int) -> None:
    """Drops the warnings to which a run that goes on at `images_seen` will come again. The rest is history."""
    keep_rows(path, lambda row: row.get("kind") != "warning" or row.get("images_seen", 0) <= images_seen)
