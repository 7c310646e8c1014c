"""What a run recorded for W&B, read back from its .wandb files as W&B's own records."""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def wandb_records(file: Path) -> list[Any]:
    """All records of a .wandb file. W&B's service writes the last of them a moment after the run was closed."""
    from wandb.proto import wandb_internal_pb2

    end = time.monotonic() + 20
    while True:
        contents = list(_leveldb_records(file.read_bytes()))
        records = [wandb_internal_pb2.Record.FromString(content) for content in contents]  # type: ignore[attr-defined]
        if any(record.HasField("exit") for record in records):
            return records
        assert time.monotonic() < end, "the run was never closed"
        time.sleep(0.1)


def logged(records: list[Any]) -> list[dict[str, Any]]:
    """What was logged, a dictionary for each step; nested names are joined by dots."""
    steps = []
    for record in records:
        if record.HasField("history"):
            items = {".".join(item.nested_key) or item.key: item.value_json for item in record.history.item}
            steps.append({name: json.loads(value) for name, value in items.items()})
    return steps


def summary(records: list[Any]) -> dict[str, Any]:
    """The last value of everything in the run's summary."""
    found = {}
    for record in records:
        for item in record.summary.update:
            found[".".join(item.nested_key) or item.key] = json.loads(item.value_json)
    return found


def run_record(records: list[Any]) -> Any:
    """How W&B knows the run: run_id, project, run_group, job_type, tags, config."""
    (found,) = [record.run for record in records if record.HasField("run")]
    return found


def _leveldb_records(content: bytes) -> Iterator[bytes]:
    """The whole records of a .wandb file: LevelDB's log format behind a header of 7 bytes."""
    block_size, place, record = 32_768, 7, b""
    while place + 7 <= len(content):
        left_in_block = block_size - place % block_size
        if left_in_block < 7:
            place += left_in_block
            continue
        _, length, kind = struct.unpack_from("<IHB", content, place)
        if place + 7 + length > len(content):
            return
        record += content[place + 7 : place + 7 + length]
        place += 7 + length
        if kind in (1, 4):  # a whole record, or the last part of one
            yield record
            record = b""
