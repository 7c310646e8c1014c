"""What a run has left in its folder so far, read without trust: the run may be going on, or have died half way."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

import yaml

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import read_rows
from dcgan_dist.config import TrainConfig
from dcgan_dist.run.folder import RunFolder

Row = dict[str, Any]


@dataclass(frozen=True)
class Grid:
    """One grid of the fixed latents: drawn by the generator, and by its average where there is one."""

    images_seen: int
    generator: Path | None
    average: Path | None


@dataclass(frozen=True)
class Event:
    """Something that happened to the run. `seconds` is Unix time, None if it was not noted down."""

    images_seen: int
    kind: str
    text: str
    seconds: float | None


@dataclass(frozen=True)
class Warned:
    """A sign of collapse: which, and what it says of the run ("" if that was not noted down)."""

    kind: str
    text: str


@dataclass(frozen=True)
class RunRecord:
    """One run as its folder tells it. Every field may be empty."""

    folder: RunFolder
    status: dict[str, Any]
    rows: list[Row]
    grids: list[Grid]
    real: Path | None
    events: list[Event]
    scores: list[Row]
    settings: dict[str, Any]
    """Every setting by its full name, as in `data.image_size`."""
    environment: dict[str, Any]

    @property
    def name(self) -> str:
        """What people call it: its folder's name, which is that of the run unless run.dir says otherwise."""
        return self.folder.path.resolve().name

    @property
    def images_seen(self) -> int:
        """How far it is, by whatever is newest in the folder."""
        known = [int(row["images_seen"]) for row in self.rows] + [grid.images_seen for grid in self.grids]
        return max([*known, _count(self.status.get("images_seen"))])

    @property
    def training_scores(self) -> dict[tuple[str, str], list[Row]]:
        """Scores taken during training, by metric and protocol's key: those of unlike keys mean different things."""
        found: dict[tuple[str, str], list[Row]] = {}
        for row in self.scores:
            if row.get("during_training") and is_number(row.get("value")):
                found.setdefault((str(row.get("metric")), str(row.get("protocol_key"))), []).append(row)
        return found

    @property
    def reason(self) -> str:
        """Why it ended as it did, if that was written down."""
        return str(self.status.get("reason") or "")

    @property
    def updated(self) -> float | None:
        """Its last sign of life in Unix time."""
        seconds = self.status.get("updated")
        return seconds if is_number(seconds) else None

    @property
    def state(self) -> str:
        """running, done, preempted, failed or unknown."""
        return str(self.status.get("status", "unknown"))

    @property
    def warnings(self) -> list[Warned]:
        """The signs of collapse that had not gone when the status was written; at the end of a run, that lasted."""
        kinds, texts = self.status.get("warnings"), self.status.get("warning_texts")
        known = texts if isinstance(texts, dict) else {}
        return [Warned(str(kind), str(known.get(kind, ""))) for kind in kinds] if isinstance(kinds, list) else []

    @property
    def verdict(self) -> str:
        """The state in words for people: with signs of collapse, no run is plainly done."""
        return f"{self.state}, with warnings" if self.warnings else self.state


def read_run(path: Path) -> RunRecord:
    """The record of the run in folder `path`. Raises UserError if there is no run."""
    folder = RunFolder(path)
    known = (folder.metrics, path / "config.yaml", path / "status.json", path / "samples")
    try:
        if not path.is_dir():
            raise UserError(f"{path}: no such folder; give a run's, such as runs/demo")
        if not any(file.exists() for file in known):
            raise UserError(f"{path}: no run in this folder (no metrics.jsonl, config.yaml or samples/)")
        return _read(folder)
    except OSError as error:
        raise UserError(f"{error.filename or path}: cannot be read ({error.strerror}); give a run's folder") from None


def _read(folder: RunFolder) -> RunRecord:
    status = _json_object(folder.path / "status.json")
    rows = sorted(_counted(folder.metrics), key=lambda row: row["images_seen"])
    return RunRecord(
        folder=folder,
        status=status,
        rows=rows,
        grids=_grids(folder),
        real=folder.real_grid if folder.real_grid.is_file() else None,
        events=_events(folder.path / "events.jsonl", status, rows),
        scores=_counted(folder.path / "scores.jsonl"),
        settings=_settings(folder.path / "config.yaml"),
        environment=_json_object(folder.environment),
    )


def _counted(path: Path) -> list[Row]:
    """The rows of a file that say at how many images they were written."""
    return [row for row in read_rows(path) if is_number(row.get("images_seen"))]


def is_number(value: Any) -> TypeGuard[float]:
    """Whether it can be a point on a curve."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def protocol_note(metric: str, protocol: str, known: Iterable[tuple[str, str]]) -> str:
    """Which protocol a score is of, as in the table of scores, where several are `known` for its metric."""
    several = len({key for name, key in known if name == metric}) > 1
    return f"; protocol {protocol[:8]}" if several else ""


def default_settings() -> dict[str, Any]:
    """Every setting's default, by its full name."""
    return _flat(TrainConfig().as_dict())


def _count(value: Any) -> int:
    return int(value) if is_number(value) else 0


def _json_object(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
    except ValueError:
        return {}
    return content if isinstance(content, dict) else {}


def _settings(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8", errors="replace")) if path.is_file() else {}
    except (yaml.YAMLError, ValueError):
        return {}
    return _flat(content) if isinstance(content, dict) else {}


def _flat(sections: dict[str, Any]) -> dict[str, Any]:
    return {
        f"{section}.{name}": value
        for section, fields in sections.items()
        if isinstance(fields, dict)
        for name, value in fields.items()
    }


def _grids(folder: RunFolder) -> list[Grid]:
    samples = folder.real_grid.parent
    found = {
        int(path.stem)
        for path in (*samples.glob("*.png"), *samples.glob("ema/*.png"))
        if path.stem.isascii() and path.stem.isdigit()
    }
    return [
        Grid(
            images_seen,
            *(path if path.is_file() else None for path in (folder.grid(images_seen), folder.ema_grid(images_seen))),
        )
        for images_seen in sorted(found)
    ]


def _events(path: Path, status: dict[str, Any], rows: list[Row]) -> list[Event]:
    """What the run noted down; of a run that noted nothing, how it stands."""
    noted = [
        Event(
            int(row["images_seen"]),
            str(row.get("kind", "note")),
            str(row.get("text", "")),
            row["time"] if is_number(row.get("time")) else None,
        )
        for row in _counted(path)
    ]
    if noted or not status:
        return noted
    updated = status.get("updated")
    reason = str(status.get("reason") or "")
    last = _count(status.get("images_seen")) or (int(rows[-1]["images_seen"]) if rows else 0)
    return [Event(last, str(status.get("status", "unknown")), reason, updated if is_number(updated) else None)]
