"""What a checkpoint holds, by name and kind: read and checked here, and nowhere else."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, fields
from typing import Any

from torch import Tensor

FORMAT_VERSION = 1

Weights = dict[str, Tensor]
"""A network's state dict, which loads into one with ordinary BatchNorm2d."""


@dataclass(frozen=True)
class Saved:
    """A run at one moment. The fields are the keys of the file; those with a default came with later versions."""

    images_seen: int
    generator: Weights
    discriminator: Weights
    ema: Weights | None
    """The moving average of the generator, if the run keeps one."""
    optimizers: dict[str, Any]
    """Adam's moments: `generator` and `discriminator`."""
    scalers: dict[str, Any]
    """The loss scalers of fp16, by the same names."""
    metric_sums: Tensor
    """Sums of the figures since the last row, over all ranks."""
    seed: int
    config: dict[str, Any]
    """Every setting, by section."""
    dataset_fingerprint: str
    global_batch: int
    tracker_ids: dict[str, str]
    precision: str | None = None
    """Name of the arithmetic it was trained in."""
    watch: dict[str, Any] | None = None
    """What the watch on stability remembers."""
    torch_version: str | None = None
    singular_vectors: Weights | None = None
    """Of the discriminator's weights, by layer, where `model.spectral_norm` is on."""
    classes: dict[str, Any] | None = None
    """The classes that the networks are told of, and which of them typical images show."""

    @classmethod
    def from_contents(cls, contents: Any) -> Saved:
        """The checkpoint that torch has loaded. Raises ValueError with what is wrong if it is none of ours."""
        known = {field.name: field for field in fields(cls)}
        needed = ["format_version", *(name for name, field in known.items() if field.default is MISSING)]
        if not isinstance(contents, dict):
            raise ValueError("not a checkpoint of this program (it lacks everything)")
        if missing := [name for name in needed if name not in contents]:
            raise ValueError(f"not a checkpoint of this program (it lacks {missing[0]})")
        if contents["format_version"] is True or contents["format_version"] != FORMAT_VERSION:
            raise ValueError(f"checkpoint format {contents['format_version']}, this program reads {FORMAT_VERSION}")
        found = {name: contents[name] for name in known if name in contents}
        for name, value in found.items():
            if not _is_sound(name, value):
                raise ValueError(f"not a checkpoint of this program ({name} cannot be {str(value)[:40]!r})")
        return cls(**found)

    def contents(self) -> dict[str, Any]:
        """What goes into the file."""
        return {"format_version": FORMAT_VERSION} | {field.name: getattr(self, field.name) for field in fields(self)}

    @property
    def adam(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Adam's moments of the generator and of the discriminator. Raises KeyError if one is missing."""
        return self.optimizers["generator"], self.optimizers["discriminator"]

    @property
    def loss_scales(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """The loss scalers of the generator and of the discriminator. Raises KeyError if one is missing."""
        return self.scalers["generator"], self.scalers["discriminator"]


_KINDS: dict[str, type | tuple[type, ...]] = {
    "optimizers": dict,
    "scalers": dict,
    "config": dict,
    "dataset_fingerprint": str,
    "tracker_ids": dict,
    "precision": (str, type(None)),
    "classes": (dict, type(None)),
}
_COUNTS = {"images_seen": 0, "global_batch": 1}  # the least that each can be


def _is_sound(name: str, value: Any) -> bool:
    """Whether a part is of the kind that we write. Weights and moments are looked at when they are loaded."""
    if name in _COUNTS:
        return isinstance(value, int) and not isinstance(value, bool) and value >= _COUNTS[name]
    if name == "classes" and isinstance(value, dict):
        return isinstance(value.get("names"), list)
    return isinstance(value, _KINDS.get(name, object))
