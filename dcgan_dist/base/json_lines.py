"""Files of one JSON object a line: read whatever a crash left of them, appended to, shortened."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from dcgan_dist.base.files import write_text


def read_rows(path: Path) -> list[dict[str, Any]]:
    """The rows of a file, in order; what is no JSON object, such as the half of a line, is left out.

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
    """Adds one row, on a line of its own whatever stands before it. Raises OSError as the file system does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+b") as file:
        end = file.tell()
        if end:
            file.seek(end - 1)
        torn = bool(end) and file.read(1) != b"\n"
        file.write((("\n" if torn else "") + json.dumps(row) + "\n").encode())


def keep_rows(path: Path, wanted: Callable[[dict[str, Any]], bool]) -> None:
    """Drops the rows that are not `wanted`; the file is replaced whole, and only if that changes it."""
    rows = read_rows(path)
    kept = [row for row in rows if wanted(row)]
    if len(kept) < len(rows):
        write_text(path, "".join(json.dumps(row) + "\n" for row in kept))
