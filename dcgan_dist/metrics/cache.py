"""What was computed of real images alone, kept beside the shards for the next evaluation."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.files import atomic_write
from dcgan_dist.distributed.world import World

log = logging.getLogger(__name__)

FOLDER = "evaluation"


class RealCache:
    """Tensors by name in `<shards>/evaluation/`. Rank 0 touches the files; every rank makes the same calls."""

    def __init__(self, shards: Path, world: World) -> None:
        self._folder = shards / FOLDER
        self._world = world

    def get(self, name: str, compute: Callable[[], Tensor]) -> Tensor:
        """The tensor kept as `name`, on the host. If there is none, or it is damaged, all ranks compute it.

        `name` must say everything that the tensor depends on. A folder that cannot be written is only told of.
        """
        path = self._folder / f"{name}.pt"
        kept = self._world.broadcast_object(_read(path) if self._world.is_main else None)
        if kept is not None:
            return kept
        value = compute().cpu()
        if self._world.is_main:
            try:
                self._folder.mkdir(exist_ok=True)
                with atomic_write(path) as file:
                    torch.save(value, file)
            except (OSError, RuntimeError) as error:  # torch wraps a full disk in a RuntimeError
                log.info("%s is not kept for the next evaluation (%s)", path, in_one_line(error))
        return value


def _read(path: Path) -> Tensor | None:
    try:
        value = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # not there, half of it, something else: then it is computed
        return None
    return value if isinstance(value, Tensor) else None
