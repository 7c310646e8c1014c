"""Gradients and weights are those of one rank."""

from __future__ import annotations

import copy
import itertools
from dataclasses import replace
from typing import Any, Literal

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from dcgan_dist.config import DataConfig, EmaConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.gradients import copy_from_main, replicate
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import singular_vectors
from dcgan_dist.gan.losses import LOSSES
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.training.engine import open_update
from dcgan_dist.training.plan import checksum
from dcgan_dist.training.state import TrainState, initial_state
from tests.distributed.ranks.batch_norm import close, random_tensor
from tests.distributed.ranks.common import ALONE, CHANNELS, CPU
from tests.given import given_inputs, random_classes

Augment = Literal["none", "diff"]


def tiny_config(precision: PrecisionName = "fp64", size: int = 32, **train: object) -> TrainConfig:
    section = TrainSection(precision=precision, **train)  # type: ignore[arg-type]
    return TrainConfig(
        data=DataConfig(image_size=size), model=ModelConfig(latent_size=8, base_channels=4), train=section
    )


def trained(
    world: World, global_batch: int, steps: int, config: TrainConfig | None = None, num_classes: int = 0
) -> tuple[TrainState, list[dict[str, float]]]:
    """A few steps on this world's ranks, and the figures of each step."""
    config = config or tiny_config()
    precision = Precision(config.train.precision, CPU)  # type: ignore[arg-type]
    state = initial_state(config, world, precision, num_classes)
    first, count = share(global_batch, world.rank, world.size)
    plan = BatchPlan(0, 2 * global_batch, global_batch, first, count, False)
    images, inputs = given_inputs(
        config, plan, world, precision.weights, shown=random_classes(plan.num_samples, num_classes)
    )
    update = open_update(config, state, precision, inputs, plan, world)
    size = config.data.image_size
    figures = []
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (global_batch, 3, size, size), generator=random, dtype=torch.uint8)
        images.set(pixels[first : first + count])
        inputs.prepare(number * global_batch, 1)
        update()
        figures.append(state.window.take_means(world))
    return state, figures


def assert_same_weights(expected: TrainState, found: TrainState, tolerance: float, what: str) -> None:
    for name in ("generator", "discriminator", "average"):
        one, other = getattr(expected, name).state_dict(), getattr(found, name).state_dict()
        assert list(one) == list(other)
        for key, value in one.items():
            close(value, other[key], tolerance, f"{what}: {name}.{key}")


def compare_engines(world: World, precision: PrecisionName, steps: int, tolerance: float, reuse_fakes: bool) -> None:
    """DDP against gradients averaged in one go, on these ranks and on one."""
    for each in (world, ALONE) if world.size == 2 else (world,):
        expected, found = (
            trained(each, 3 * world.size, steps, tiny_config(precision, engine=engine, reuse_fakes=reuse_fakes))[0]
            for engine in ("ddp", "graph")
        )
        assert_same_weights(expected, found, tolerance, f"{each.size} ranks")


def every_engine_ends_with_the_same_weights(world: World) -> None:
    compare_engines(world, "fp64", 20, 1e-9, reuse_fakes=False)


def every_engine_reuses_fakes_alike(world: World) -> None:
    compare_engines(world, "fp64", 5, 1e-9, reuse_fakes=True)


def every_engine_takes_the_same_step_in_single_precision(world: World) -> None:
    compare_engines(world, "fp32", 1, 1e-5, reuse_fakes=False)


class CollectivesCounted(TorchDispatchMode):
    """Counts what is handed to the process group."""

    number = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.number += func.namespace == "c10d"
        return func(*args, **(kwargs or {}))


def a_step_takes_as_many_collectives_as_the_readme_says(world: World) -> None:
    found = {}
    for engine, reuse in itertools.product(("ddp", "graph"), (False, True)):
        config = tiny_config("fp32", 64, engine=engine, reuse_fakes=reuse)
        state = initial_state(config, world, Precision("fp32", CPU))
        plan = BatchPlan(0, 1, world.size, 0, 1, False)
        images, inputs = given_inputs(config, plan, world, torch.float32)
        images.set(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
        update = open_update(config, state, Precision("fp32", CPU), inputs, plan, world)
        for _ in range(2):  # DDP arranges its buckets meanwhile
            update()
        with CollectivesCounted() as counted:
            update()
        found[engine, reuse] = counted.number
    assert found == {("ddp", False): 30, ("ddp", True): 26, ("graph", False): 30, ("graph", True): 26}, found


def assert_trains_as_alone(world: World, global_batch: int, steps: int = 4) -> None:
    (state, figures), (expected, expected_figures) = (trained(each, global_batch, steps) for each in (world, ALONE))
    assert_same_weights(expected, state, 1e-9, f"{world.size} ranks")
    for ours, alone in zip(figures, expected_figures, strict=True):
        for name, value in alone.items():
            assert abs(ours[name] - value) < 1e-9, name


def steps_over_even_shares_are_those_of_one_rank(world: World) -> None:
    assert_trains_as_alone(world, 3 * world.size)


def steps_over_uneven_shares_are_those_of_one_rank(world: World) -> None:
    assert_trains_as_alone(world, 3 * world.size + 1)


def steps_on_kernels_are_those_of_one_rank(world: World) -> None:
    """Few, for the interpreter."""
    assert_trains_as_alone(world, world.size + 1, steps=2)


def augmentation_and_a_warm_up_of_the_average_are_those_of_one_rank(world: World) -> None:
    for loss in ("bce", "relativistic"):
        config = tiny_config("fp64", loss=loss)
        config = replace(config, data=replace(config.data, augment="diff"), ema=EmaConfig(1000, 0.5))
        (state, _), (expected, _) = (trained(each, 3 * world.size + 1, 3, config) for each in (world, ALONE))
        assert_same_weights(expected, state, 1e-8, f"{loss} on {world.size} ranks")


def every_loss_trains_as_on_one_rank(world: World) -> None:
    for loss in LOSSES:
        config = tiny_config("fp64", loss=loss)
        (state, _), (expected, _) = (trained(each, 3 * world.size, 3, config) for each in (world, ALONE))
        assert_same_weights(expected, state, 1e-8, f"{loss} on {world.size} ranks")


def a_penalty_and_spectral_norm_train_as_on_one_rank(world: World) -> None:
    plain, size = tiny_config(), 3 * world.size + 1  # images; shares are uneven
    bounded = replace(plain, model=replace(plain.model, spectral_norm=True))
    for config in (tiny_config(r1_gamma=1.0), tiny_config(r1_gamma=1.0, engine="ddp"), bounded):
        (state, _), (expected, _) = (trained(each, size, 4, config) for each in (world, ALONE))
        assert_same_weights(expected, state, 1e-8, f"{config.train.engine}, {world.size} ranks")
        for name, left in singular_vectors(expected.discriminator).items():
            close(left, singular_vectors(state.discriminator)[name], 1e-8, name)
            assert torch.equal(*world.gather(singular_vectors(state.discriminator)[name])[:2]), name


def parts_one_after_the_other_train_as_ranks_beside_each_other(world: World) -> None:
    """With local batch norm, each part is what a rank of its own would be; the last one is larger here."""
    relative = {"loss": "relativistic", "r1_gamma": 1.0}
    cases: tuple[tuple[dict[str, Any], Augment, int], ...] = (
        ({"engine": "ddp"}, "none", 0),
        ({"reuse_fakes": False}, "diff", 2),
        (relative, "diff", 0),
    )
    for switches, augment, classes in cases:

        def after_steps(on: World, images: int, parts: int, case: Any = (switches, augment, classes)) -> Any:
            config = tiny_config(batch_norm="local", accumulate=parts, **case[0])
            config = replace(config, data=replace(config.data, augment=case[1]))
            return trained(on, images, 2, config, case[2])

        images = 4 * world.size + 1
        (state, figures), (expected, of_one) = after_steps(world, images, 2), after_steps(ALONE, images, 2 * world.size)
        assert_same_parameters(expected, state, f"{switches}, two parts on each of {world.size} ranks")
        assert all(abs(each[name] - of_one[step][name]) < 1e-9 for step, each in enumerate(figures) for name in each)
        (state, _), (expected, _) = after_steps(world, images, 1), after_steps(ALONE, images, world.size)
        assert_same_parameters(expected, state, f"{switches}, {world.size} parts")


def assert_same_parameters(expected: TrainState, found: TrainState, what: str) -> None:
    """Of both networks: running statistics are those of the parts that a rank has seen."""
    for name in ("generator", "discriminator"):
        others = dict(getattr(found, name).named_parameters())
        for key, value in getattr(expected, name).named_parameters():
            close(value, others[key], 1e-9, f"{what}: {name}.{key}")


def networks_told_of_classes_train_as_on_one_rank(world: World) -> None:
    for engine, loss in (("ddp", "bce"), ("graph", "bce"), ("graph", "relativistic")):
        config = tiny_config("fp64", engine=engine, loss=loss)
        (state, _), (expected, _) = (trained(each, 3 * world.size + 1, 3, config, 2) for each in (world, ALONE))
        assert_same_weights(expected, state, 1e-8, f"{engine} and {loss} on {world.size} ranks")


def gradients_are_averaged_over_ranks(world: World) -> None:
    network = nn.Sequential(nn.Linear(7, 3), nn.Tanh(), nn.Linear(3, 2)).double()
    copy_from_main(network, world)
    alone = copy.deepcopy(network)
    inputs = random_tensor(40, world.size, 7)
    replica = replicate(network, world)  # kept, because gradients are averaged only while it lives
    replica(inputs[world.rank : world.rank + 1]).sum().backward()
    (alone(inputs).sum() / world.size).backward()
    for one, other in zip(alone.parameters(), network.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        close(one.grad, other.grad, 1e-14, "gradient")


def every_rank_ends_with_the_same_bits(world: World) -> None:
    state, _ = trained(world, 3 * world.size + 1, 3)
    sums = world.gather_objects([checksum(state.generator), checksum(state.discriminator)])
    assert all(other == sums[0] for other in sums)


def local_batch_norm_is_levelled_by_rank_0s_statistics(world: World) -> None:
    layer = nn.BatchNorm2d(CHANNELS)
    layer(torch.randn(2, CHANNELS, 3, 3, generator=torch.Generator().manual_seed(world.rank)))
    assert layer.running_mean is not None
    with torch.no_grad():
        layer.weight.fill_(world.rank)
    before = world.gather(layer.running_mean.clone())
    copy_from_main(layer, world, "buffers")
    assert not torch.equal(before[0], before[1])
    assert torch.equal(layer.running_mean, before[0])
    assert layer.weight.mean() == world.rank  # parameters stay as they are


def networks_keep_their_parameters_when_synchronised(world: World) -> None:
    network = nn.Sequential(nn.Conv2d(3, CHANNELS, 1), nn.Sequential(nn.BatchNorm2d(CHANNELS)))
    before, keys = [id(parameter) for parameter in network.parameters()], list(network.state_dict())
    synchronise_batch_norm(network, world)
    assert [id(parameter) for parameter in network.parameters()] == before
    assert list(network.state_dict()) == keys
    assert isinstance(network.get_submodule("1.0"), SyncBatchNorm2d)
