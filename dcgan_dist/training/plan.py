"""What is settled before the first step: the data, the batches, the state, and that all ranks agree on them."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from dcgan_dist.base.errors import RunFailed, UserError, in_one_line
from dcgan_dist.base.grid import columns_of
from dcgan_dist.config import TrainConfig, TrainSection
from dcgan_dist.data.classes import Classes, classes_of_shards
from dcgan_dist.data.loader import BatchPlan, Shards
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.saved import Saved
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.figures import StageClock
from dcgan_dist.training.by_position import StepNumbers
from dcgan_dist.training.resume import check_identity, check_precision, choose_global_batch
from dcgan_dist.training.state import TrainState, initial_state

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What one start of a run shares with all its parts."""

    config: TrainConfig
    folder: RunFolder
    world: World
    stop: StopRequest
    stages: StageClock


@dataclass(frozen=True)
class Plan:
    """Everything that is decided before the first step."""

    manifest: Manifest
    saved: Saved | None
    """The checkpoint that the run goes on from."""
    batches: BatchPlan
    total_images: int
    precision: Precision
    classes: Classes | None
    """What all images show, if the networks are told of it."""

    @property
    def num_classes(self) -> int:
        """How many classes the networks are told of."""
        return len(self.classes.names) if self.classes else 0

    @property
    def typical(self) -> Classes | None:
        """The classes of a few images, enough to draw as the data are."""
        return self.classes.typical(self.batches.seed) if self.classes else None

    def numbers(self, config: TrainConfig, world: World, rollbacks: int = 0) -> StepNumbers:
        """What each step gives to the networks besides images."""
        conditions = self.classes.rows.to(world.device) if self.classes else None
        return StepNumbers(config, self.batches, world, self.precision.weights, rollbacks, conditions)


def settle(config: TrainConfig, shards: Shards, saved: Saved | None, world: World) -> Plan:
    """What follows from configuration, data, checkpoint and ranks; UserError where they do not fit."""
    manifest = shards.manifest
    if saved:
        world.together(check_identity, config, manifest.fingerprint, saved)
    global_batch = choose_global_batch(config.data, world, saved, manifest.samples, config.train.accumulate)
    wanted = config.train.total_images or round(config.train.epochs * manifest.samples)
    total_images = max(1, math.ceil(wanted / global_batch)) * global_batch  # whole steps
    precision = Precision(_agree_on_precision(config.train, world), world.device)
    if saved:
        check_precision(config, precision.name, saved)
    batches = BatchPlan.of(config.data, config.run.seed, manifest.samples, global_batch, world)
    classes = classes_of_shards(shards, config.model.classes, world)
    if saved and classes:
        names = saved.classes["names"] if saved.classes else []
        world.together(classes.assert_named, names, "choose another --run.dir")
    return Plan(manifest, saved, batches, total_images, precision, classes)


def _agree_on_precision(train: TrainSection, world: World) -> Any:
    """Returns the precision; with auto, the best that every rank's hardware supports."""
    if train.precision != "auto":
        return train.precision
    able = world.gather_objects(best_precision(world.device))
    return able[0] if len(set(able)) == 1 else "fp32"


def restore(config: TrainConfig, plan: Plan, world: World) -> TrainState:
    """The state of the plan's checkpoint, or the one before the first step.

    Raises UserError, on every rank, if the checkpoint holds something else than these networks and optimizers.
    """
    state = initial_state(config, world, plan.precision, plan.num_classes)
    if plan.saved:
        world.together(_load, state, plan.saved, world)
    return state


def _load(state: TrainState, saved: Saved, world: World) -> None:
    try:
        state.load(saved, world)
    except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(
            f"the checkpoint at {saved.images_seen} images does not fit these networks and optimizers: "
            f"{in_one_line(error, 200)}; set --model and --data back, or choose another --run.dir"
        ) from None


def check_ranks(plan: Plan, state: TrainState, numbers: StepNumbers, world: World) -> None:
    """Checks cheaply, before the first step, for mistakes that would otherwise stay silent."""
    batches, position = plan.batches, state.images_seen
    assert_equal_on_all_ranks(
        world,
        {
            "generator weights": checksum(state.generator),
            "discriminator weights": checksum(state.discriminator),
            "data sets": plan.manifest.fingerprint,
            "global batches": batches.global_batch,
            "images to train on": plan.total_images,
            "images seen": position,
        },
    )
    both = torch.cat(numbers.latents(position))
    assert_disjoint(world, "latents", [tuple(row[:4].tolist()) for row in both])
    if position % batches.num_samples + batches.global_batch <= batches.num_samples:  # within one epoch
        assert_disjoint(world, "images", batches.ids(position))


def announce(run: Run, plan: Plan, images_seen: int) -> None:
    """Logs in one line what is about to be trained, and how."""
    log.info(
        "%s %s on %d rank(s) of %s, %s; %d images of %s (%s); %d a step, %d in all",
        "going on with" if images_seen else "starting",
        run.folder.path,
        run.world.size,
        run.world.device.type,
        plan.precision.name,
        plan.manifest.samples,
        plan.manifest.dataset,
        plan.manifest.split,
        plan.batches.global_batch,
        plan.total_images,
    )
    if plan.classes:
        images = run.config.sample.num_images
        rows = math.ceil(images / columns_of(images))
        log.info("from top to bottom the rows of a grid show: %s", ", ".join(plan.classes.on_a_grid()[0][:rows]))
    if images_seen:
        log.info("%d images were seen before", images_seen)


def checksum(network: nn.Module) -> str:
    """Returns a checksum of all parameters: it changes if one bit does. (Local batch norm's statistics may differ.)"""
    total = torch.zeros((), dtype=torch.int64, device=next(network.parameters()).device)
    for index, parameter in enumerate(network.parameters()):
        bits = parameter.detach().contiguous().flatten().view(torch.int32).to(torch.int64)
        places = torch.arange(len(bits), device=bits.device) % 65521 + 1 + index
        total += (bits * places).sum()
    return f"{int(total.item()):016x}"


def assert_equal_on_all_ranks(world: World, values: dict[str, Any]) -> None:
    """Raises RunFailed naming what differs and which ranks hold the odd value."""
    everyone = world.gather_objects(values)
    for what in values:
        seen = [other[what] for other in everyone]
        odd = [rank for rank, value in enumerate(seen) if value != seen[0]]
        if odd:
            raise RunFailed(f"{what} differ between ranks: rank 0 has {seen[0]}, rank {odd[0]} has {seen[odd[0]]}")


def assert_disjoint(world: World, what: str, values: list[Any]) -> None:
    """Raises RunFailed naming two ranks that hold one of the same `values`."""
    owner: dict[Any, int] = {}
    for rank, theirs in enumerate(world.gather_objects(values)):
        for value in theirs:
            if owner.setdefault(value, rank) != rank:
                raise RunFailed(f"{what} must differ between ranks: ranks {owner[value]} and {rank} hold the same")
