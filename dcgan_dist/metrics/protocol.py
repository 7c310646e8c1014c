"""Under which protocol a score was taken. Scores of unlike protocols mean different things and are never compared."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import Any

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
