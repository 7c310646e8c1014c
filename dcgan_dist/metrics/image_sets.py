"""The images that are scored, drawn and real. Which they are depends on seed and position alone, not on the ranks."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import normal, stream_seed
from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.files import atomic_write
from dcgan_dist.base.waiting import Advance
from dcgan_dist.data.classes import Classes
from dcgan_dist.data.loader import PixelSource
from dcgan_dist.distributed.workforce import CHUNK, Workforce
from dcgan_dist.distributed.world import World

Input = TypeVar("Input")

Draw = Callable[[Tensor], Tensor]
"""Latents [n, latent_size + classes], float64, to images, uint8 [n, 3, size, size]."""


def drawn_images(
    draw: Draw,
    seed: int,
    latent_size: int,
    num_images: int,
    workforce: Workforce,
    advance: Advance,
    classes: Classes | None = None,
) -> Tensor:
    """The first images of a generator, the same on any number of ranks: uint8 [num_images, 3, s, s] on every rank.

    They are to show what the images of `classes` do in turn.
    """
    device = workforce.world.device

    def drawn(start: int) -> Tensor:
        latents = normal(seed, "evaluation latents", start, CHUNK, latent_size, device)
        return draw(classes.beside(latents, start) if classes else latents)

    return gathered(workforce, num_images, workforce.chunk_starts(num_images), drawn, advance)


def real_images(source: PixelSource, chosen: list[int], workforce: Workforce, advance: Advance) -> Tensor:
    """The images of these sample numbers, decoded by all ranks together: uint8 [n, 3, size, size] on every rank."""
    whole = chosen + chosen[-1:] * (-len(chosen) % CHUNK)
    batches = source(whole[start : start + CHUNK] for start in workforce.chunk_starts(len(chosen)))
    images = (pixels.permute(0, 3, 1, 2) for pixels in batches)
    return gathered(workforce, len(chosen), images, lambda pixels: pixels, advance)


def random_order(seed: int, num_samples: int) -> list[int]:
    """All sample numbers in the order in which an evaluation takes them."""
    random = torch.Generator().manual_seed(stream_seed(seed, "evaluation images"))
    return torch.randperm(num_samples, generator=random).tolist()


def gathered(
    workforce: Workforce, count: int, inputs: Iterator[Input], compute: Callable[[Input], Tensor], advance: Advance
) -> Tensor:
    """Gathers what all ranks compute of their chunks: [count, ...] on every rank."""
    portions = []
    for portion in workforce.in_order(count, inputs, compute):
        portions.append(portion)
        advance(len(portion))
    return torch.cat(portions)


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
