"""Steps whose images a test chooses."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan, PixelSource
from dcgan_dist.data.step_images import step_images
from dcgan_dist.distributed.world import World
from dcgan_dist.training.by_position import Rates, StepInputs, StepNumbers


class GivenImages:
    """Images that a test chooses, instead of those that follow from the position."""

    def __init__(self) -> None:
        self._pixels: Tensor | None = None

    def set(self, pixels: Tensor) -> None:
        """Puts uint8 [n, 3, size, size] where the step before found its own, as a recorded step needs it."""
        if self._pixels is None:
            self._pixels = pixels.clone()
        self._pixels.copy_(pixels)

    def prepare(self, images_seen: int, steps: int) -> int:
        """There is nothing to do."""
        return 1

    def at(self, position: Tensor) -> Tensor:
        """What was given."""
        assert self._pixels is not None
        return self._pixels


def given_inputs(
    config: TrainConfig,
    plan: BatchPlan,
    world: World,
    dtype: torch.dtype,
    images_seen: int = 0,
    shown: Tensor | None = None,
) -> tuple[GivenImages, StepInputs]:
    """Inputs of steps whose images a test chooses; all else follows from the position.

    With `shown`, the conditions of all images, steps have to be prepared.
    """
    numbers = StepNumbers(config, plan, world, dtype, conditions=None if shown is None else shown.to(world.device))
    images = GivenImages()
    return images, StepInputs(images, numbers, Rates([], 1, 0.0), images_seen)


def random_classes(images: int, num_classes: int) -> Tensor | None:
    """Which of so many classes each image shows, uint8 [images, num_classes]; None without classes."""
    random = torch.Generator().manual_seed(0)
    return torch.randint(0, 2, (images, num_classes), generator=random, dtype=torch.uint8) if num_classes else None


def batches_from(source: PixelSource, plan: BatchPlan, images_seen: int, device: torch.device) -> Iterator[Tensor]:
    """The batches of a run, one after the other, from a position on."""
    images = step_images(source, plan, images_seen)
    while True:
        assert images.prepare(images_seen, 1) == 1
        yield images.at(torch.tensor(images_seen, device=device))
        images_seen += plan.global_batch
