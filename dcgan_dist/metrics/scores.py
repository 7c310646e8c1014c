"""Under which protocol a score was taken. Scores of unlike protocols mean different things and are never compared."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from dcgan_dist import __version__
from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import append_row, keep_rows, read_rows

FILTER = "triangle, antialiased"  # how the decoders shrink an image to its size


@dataclass(frozen=True)
class Protocol:
    """Everything besides the generator that a score depends on."""

    metric: str
    """swd, ms_ssim, fid or kid."""
    dataset: str
    """Fingerprint of the shards."""
    image_size: int
    """Height and width in pixels of the images that are compared."""
    crop: str
    """The part of a photograph that is kept, as in `data.crop`."""
    decoder: str
    """dali or pillow, with the device it decodes on."""
    num_images: int
    """Images on either side."""
    seed: int
    """Of latents, of the choice of real images, and of everything random in the metric."""
    details: dict[str, Any] = field(default_factory=dict)
    """The metric's own settings: levels, scales, checksum of the feature network's weights, ..."""
    filter: str = FILTER

    @property
    def key(self) -> str:
        """Sixteen hexadecimal digits: equal for equal protocols."""
        canonical = json.dumps(asdict(self), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(canonical.encode()).hexdigest()[:16]

    def as_dict(self) -> dict[str, Any]:
        """What stands beside a score in scores.jsonl."""
        return asdict(self)


def differences(one: dict[str, Any], other: dict[str, Any]) -> list[str]:
    """What two recorded protocols differ in, a phrase each: `num_images is 1024 and was 2048`."""
    one, other = _flat(one), _flat(other)
    return [
        f"{name} is {one.get(name)} and was {other.get(name)}"
        for name in sorted(one.keys() | other.keys())
        if one.get(name) != other.get(name)
    ]


def _flat(protocol: dict[str, Any]) -> dict[str, Any]:
    details = protocol.get("details") or {}
    return {name: value for name, value in protocol.items() if name != "details"} | details


ScoreRow = dict[str, Any]
"""What `Score.row` writes, with `checkpoint`, `during_training`, `time` and `version`."""


def append_scores(path: Path, rows: list[ScoreRow], checkpoint: str, during_training: bool) -> list[ScoreRow]:
    """Adds rows, with where they come from, and returns them. Raises OSError as the file system does."""
    origin = {"checkpoint": checkpoint, "during_training": during_training, "version": __version__}
    complete = [row | origin | {"time": round(time.time(), 3)} for row in rows]
    for row in complete:
        append_row(path, row)
    return complete


def read_scores(path: Path) -> list[ScoreRow]:
    """The whole rows of a file, in the order in which they were written."""
    needed = {"images_seen", "metric", "value", "protocol", "protocol_key"}
    return [row for row in read_rows(path) if needed <= row.keys() and isinstance(row["value"], (int, float))]


def drop_scores_after(path: Path, images_seen: int) -> None:
    """Forgets scores of what will be trained anew by a run that goes on at `images_seen`."""
    keep_rows(path, lambda row: row.get("images_seen", 0) <= images_seen)


def best_score(rows: list[ScoreRow], metric: str, protocol_key: str) -> ScoreRow | None:
    """The lowest score taken during training under exactly this protocol; None if there is none."""
    alike = [row for row in rows if (row["metric"], row["protocol_key"]) == (metric, protocol_key)]
    return min((row for row in alike if row.get("during_training")), key=lambda row: row["value"], default=None)


def newest_comparable(place: Path, protocol: Protocol) -> ScoreRow:
    """The newest score under `protocol` in a run folder, or a scores.jsonl, to show beside another such.

    Raises UserError if there is none; then it says in what the newest one of the same metric is different.
    """
    path = place / "scores.jsonl" if place.is_dir() else place
    rows = [row for row in (read_scores(path) if path.is_file() else []) if row["metric"] == protocol.metric]
    if not rows:
        raise UserError(
            f"{place}: has no {protocol.metric} to compare with; python -m dcgan_dist.evaluate --checkpoint {place}"
        )
    alike = [row for row in rows if row["protocol_key"] == protocol.key]
    if not alike:
        unlike = differences(protocol.as_dict(), rows[-1]["protocol"])
        raise UserError(
            f"{protocol.metric} of {place} is of another protocol and cannot be compared: {'; '.join(unlike)}; "
            "evaluate both in the same way"
        )
    return alike[-1]
