"""What torchrun starts for test_two_ranks.py: the same few steps on two ranks, which share a GPU, and on one.

    torchrun --nproc_per_node 2 -m tests.gpu.two_ranks FOLDER

writes `FOLDER/<rank>.json`: by precision the figures of each step on two ranks and on one, and how far grids differ.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import torch

from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.training.engine import open_update
from dcgan_dist.training.samples import FixedLatentSampler
from dcgan_dist.training.state import TrainState, initial_state
from tests.given import given_inputs

PRECISIONS: dict[PrecisionName, int] = {"fp64": 12, "fp32": 4, "bf16": 4, "fp16": 4}
"""Steps in each: rounding grows a thousandfold in a dozen of them."""
BATCH = 10


def trained(world: World, precision: PrecisionName, steps: int) -> tuple[TrainState, list[dict[str, float]]]:
    """The state after some steps, and the figures of each."""
    section = TrainSection(precision=precision)
    config = TrainConfig(data=DataConfig(image_size=32), model=ModelConfig(16, 16), train=section)
    arithmetic = Precision(precision, world.device)
    state = initial_state(config, world, arithmetic)
    first, count = share(BATCH, world.rank, world.size)
    plan = BatchPlan(0, 1, BATCH, first, count, False)
    images, inputs = given_inputs(config, plan, world, arithmetic.weights)
    update = open_update(config, state, arithmetic, inputs, plan, world)
    figures = []
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (BATCH, 32, 32, 3), dtype=torch.uint8, generator=random).permute(0, 3, 1, 2)
        images.set(pixels[first : first + count].to(world.device))
        update()
        figures.append(state.window.take_means(world))
    update.close()
    return state, figures


def grid(state: TrainState, world: World) -> torch.Tensor:
    """What the generator draws from the fixed latents."""
    return FixedLatentSampler(0, 8, 16, 32, world).draw(state.generator).cpu().int()


def main(folder: Path) -> None:
    """Goes through the precisions."""
    world, found = World.connect(), {}
    for precision, steps in PRECISIONS.items():
        (shared, together), (single, alone) = (trained(each, precision, steps) for each in (world, world.alone()))
        difference = (grid(shared, world) - grid(single, world.alone())).abs().max()
        weights = [value for value in shared.generator.state_dict().values() if value.is_floating_point()]
        found[precision] = {
            "together": together,
            "alone": alone,
            "grid difference": int(difference),
            "finite": all(bool(value.isfinite().all()) for value in weights),
        }
    answer: dict[str, Any] = {"device": world.device.type, "found": found}
    (folder / f"{world.rank}.json").write_text(json.dumps(answer))
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
