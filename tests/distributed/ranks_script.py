"""What torchrun starts for test_ranks.py: every check below, on each of several real ranks over gloo.

    torchrun --nproc_per_node N -m tests.distributed.ranks_script FOLDER

With TRITON_INTERPRET=1 it goes through those that a GPU's kernels take part in. It
writes `FOLDER/<rank>.json`: by name of the check, what failed on this rank, or null. A check first does everything that
the ranks do together and asserts afterwards, so that a failure on one rank keeps no other waiting.
"""

from __future__ import annotations

import copy
import importlib
import itertools
import json
import os
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dcgan_dist.base.errors import Interrupted, UserError
from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan, fill_cache
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.gradients import copy_from_main, replicate
from dcgan_dist.distributed.self_check import assert_disjoint, assert_equal_on_all_ranks, checksum
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.metrics import inception
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.figures import MetricWindow
from dcgan_dist.training.calibration import calibrate_batch_norm
from dcgan_dist.training.engine import open_update
from dcgan_dist.training.samples import FixedLatentSampler
from dcgan_dist.training.state import TrainState, initial_state
from tests.unit.test_metrics import FixedFeatures, decoded, draw, feature_evaluator

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
CHANNELS = 5


# --- synchronised batch norm ------------------------------------------------------------------------------------------


def shares(world: World, uneven: bool) -> list[int]:
    """Images on each rank: three, or one more than on the rank before, from one on."""
    return [rank + 1 if uneven else 3 for rank in range(world.size)]


def random_tensor(seed: int, *shape: int) -> Tensor:
    """The same on every rank."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_layer(dtype: torch.dtype) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(CHANNELS, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(random_tensor(1, CHANNELS))
        layer.bias.copy_(random_tensor(2, CHANNELS))
    return layer


def compare_with_whole_batch(
    world: World,
    uneven: bool,
    layout: torch.memory_format,
    input_dtype: torch.dtype,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Two training steps of both layers: outputs, all gradients and running statistics are to agree."""
    counts = shares(world, uneven)
    mine = slice(sum(counts[: world.rank]), sum(counts[: world.rank + 1]))
    whole, synchronised = norm_layer(dtype), SyncBatchNorm2d(norm_layer(dtype), world)
    pairs: list[tuple[str, Tensor, Tensor]] = []
    for step in range(2):
        values = (random_tensor(10 + step, sum(counts), CHANNELS, 4, 6) * 3 + 1).to(input_dtype)
        values = values.contiguous(memory_format=layout)
        gradient = random_tensor(20 + step, *values.shape).to(input_dtype)
        all_inputs, own_inputs = values.clone().requires_grad_(), values[mine].clone().requires_grad_()
        expected, output = whole(all_inputs), synchronised(own_inputs)
        expected.backward(gradient)
        output.backward(gradient[mine])
        assert all_inputs.grad is not None and own_inputs.grad is not None
        assert output.dtype == expected.dtype
        assert own_inputs.grad.dtype == input_dtype
        if layout == torch.channels_last:
            assert output.is_contiguous(memory_format=layout)
        pairs += [("output", expected[mine], output), ("input gradient", all_inputs.grad[mine], own_inputs.grad)]
    for name in ("weight", "bias"):
        one, other = getattr(whole, name).grad, getattr(synchronised, name).grad
        pairs.append((f"{name} gradient", one, world.sum(other)))
    pairs += [(name, value, dict(synchronised.named_buffers())[name]) for name, value in whole.named_buffers()]
    for name, one, other in pairs:
        close(one, other, tolerance, name)


def close(expected: Tensor, found: Tensor, tolerance: float, name: str) -> None:
    """Within `tolerance` of the largest expected value, or of one."""
    error = (expected.double() - found.double()).abs().max() / expected.double().abs().max().clamp(min=1)
    assert error <= tolerance, f"{name} is {error:.3g} off"


def sync_batch_norm_is_batch_norm_over_even_shares(world: World) -> None:
    compare_with_whole_batch(world, False, torch.contiguous_format, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_over_uneven_shares(world: World) -> None:
    compare_with_whole_batch(world, True, torch.contiguous_format, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_with_channels_last(world: World) -> None:
    for uneven in (False, True):
        compare_with_whole_batch(world, uneven, torch.channels_last, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_in_single_precision(world: World) -> None:
    compare_with_whole_batch(world, True, torch.channels_last, torch.float32, torch.float32, 1e-5)


def sync_batch_norm_takes_half_precision_inputs(world: World) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        compare_with_whole_batch(world, True, layout, torch.bfloat16, torch.float32, 2e-2)


def sync_batch_norm_keeps_precision_far_from_zero(world: World) -> None:
    """A mean a thousand times the deviation: sums of squares in single precision would lose everything."""
    values = random_tensor(30, 4 * world.size, CHANNELS, 4, 4) + 1000
    output = SyncBatchNorm2d(nn.BatchNorm2d(CHANNELS), world)(values.float()[4 * world.rank : 4 * world.rank + 4])
    expected = nn.BatchNorm2d(CHANNELS, dtype=torch.float64)(values)[4 * world.rank : 4 * world.rank + 4]
    close(expected, output, 1e-3, "output")


def sync_batch_norm_evaluates_like_batch_norm(world: World) -> None:
    layer = norm_layer(torch.float64)
    synchronised = SyncBatchNorm2d(layer, world).eval()
    values = random_tensor(31 + world.rank, 2, CHANNELS, 3, 3)
    assert torch.equal(synchronised(values), layer.eval()(values))
    assert list(synchronised.state_dict()) == list(layer.state_dict())


# --- gradients and weights --------------------------------------------------------------------------------------------


def tiny_config(precision: PrecisionName = "fp64", size: int = 32, **train: object) -> TrainConfig:
    section = TrainSection(precision=precision, **train)  # type: ignore[arg-type]
    return TrainConfig(
        data=DataConfig(image_size=size), model=ModelConfig(latent_size=8, base_channels=4), train=section
    )


def trained(
    world: World, global_batch: int, steps: int, config: TrainConfig | None = None
) -> tuple[TrainState, list[dict[str, float]]]:
    """A few steps on this world's ranks, and the figures of each step."""
    config = config or tiny_config()
    precision = Precision(config.train.precision, CPU)  # type: ignore[arg-type]
    state = initial_state(config, world, precision)
    first, count = share(global_batch, world.rank, world.size)
    update = open_update(config, state, precision, BatchPlan(0, 1, global_batch, first, count, False), world)
    size = config.data.image_size
    figures = []
    for number in range(steps):
        random = torch.Generator().manual_seed(number)
        pixels = torch.randint(0, 256, (global_batch, 3, size, size), generator=random, dtype=torch.uint8)
        latents = torch.randn(2, global_batch, 8, generator=random, dtype=torch.float64).to(precision.weights)
        mine = slice(first, first + count)
        update(pixels[mine], latents[0, mine], latents[1, mine])
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
        update = open_update(config, state, Precision("fp32", CPU), BatchPlan(0, 1, world.size, 0, 1, False), world)
        pixels, latents = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.randn(2, 8)
        for _ in range(2):  # DDP arranges its buckets meanwhile
            update(pixels, latents, latents)
        with CollectivesCounted() as counted:
            update(pixels, latents, latents)
        found[engine, reuse] = counted.number
    assert found == {("ddp", False): 30, ("ddp", True): 26, ("graph", False): 30, ("graph", True): 26}, found


def assert_trains_as_alone(world: World, global_batch: int) -> None:
    (state, figures), (expected, expected_figures) = (trained(each, global_batch, 4) for each in (world, ALONE))
    assert_same_weights(expected, state, 1e-9, f"{world.size} ranks")
    for ours, alone in zip(figures, expected_figures, strict=True):
        for name, value in alone.items():
            assert abs(ours[name] - value) < 1e-9, name


def steps_over_even_shares_are_those_of_one_rank(world: World) -> None:
    assert_trains_as_alone(world, 3 * world.size)


def steps_over_uneven_shares_are_those_of_one_rank(world: World) -> None:
    assert_trains_as_alone(world, 3 * world.size + 1)


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


# --- agreement --------------------------------------------------------------------------------------------------------


def error_of(action: Callable[[], object]) -> str:
    try:
        action()
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""


def a_mistake_on_one_rank_ends_all_with_the_same_line(world: World) -> None:
    def action() -> None:
        if world.rank == world.size - 1:
            raise UserError("the tar is torn")

    found = world.gather_objects(error_of(lambda: world.together(action)))
    expected = f"UserError: rank {world.size - 1} of {world.size}: the tar is torn"
    assert found == [expected] * world.size, found


def a_mistake_on_all_ranks_is_told_without_naming_one(world: World) -> None:
    def action() -> None:
        raise UserError("no such folder")

    assert error_of(lambda: world.together(action)) == "UserError: no such folder"


def an_interruption_of_one_rank_is_one_of_all(world: World) -> None:
    def action() -> None:
        if world.rank == world.size - 1:
            raise Interrupted("SIGTERM")

    assert error_of(lambda: world.together(action)) == "Interrupted: SIGTERM"


def together_without_a_mistake_goes_on(world: World) -> None:
    assert world.together(divmod, 7, 2 + world.rank) == divmod(7, 2 + world.rank)
    assert world.on_main(divmod, 7, 2) == ((3, 1) if world.is_main else None)
    assert world.any(world.rank == 1)
    assert not world.any(False)
    assert world.gather_objects(world.rank) == list(range(world.size))
    assert world.broadcast_object(world.rank) == 0


def a_request_to_stop_heard_by_one_rank_is_obeyed_by_all_at_one_step(world: World) -> None:
    stop = StopRequest(Path("no such folder/STOP"), time_limit_minutes=None, most_steps_between_checks=2)
    stop.listen()
    agreed = []
    for step in range(6):
        if step == 3 and world.rank == 1:
            os.kill(os.getpid(), signal.SIGUSR2)
        agreed.append(stop.agreed(world))
    everywhere = world.gather_objects((agreed.index(True), stop.reason))
    assert everywhere == [(4, "SIGUSR2")] * world.size, everywhere


def a_stop_file_and_a_time_limit_stop_all_ranks(world: World) -> None:
    folder = Path(world.broadcast_object(tempfile.mkdtemp()))
    file = folder / "STOP"
    by_file, by_time = StopRequest(file, None, 1), StopRequest(file, 1e-9, 1)
    before = by_file.agreed(world)
    if world.is_main:
        file.touch()
    after, reasons = by_file.agreed(world), world.gather_objects(by_file.reason)
    still_there = world.gather_objects(file.exists())
    in_time, why = by_time.agreed(world), world.gather_objects(by_time.reason)
    assert not before
    assert after and in_time
    assert reasons == ["the STOP file"] * world.size
    assert why == ["the time limit"] * world.size
    assert not any(still_there)  # so the run can be started again


def figures_are_means_over_the_images_of_all_ranks(world: World) -> None:
    window = MetricWindow(["loss"], CPU)
    for value in (1.0, 2.0):
        window.add([torch.tensor(value * (world.rank + 1))], images=world.rank + 1)
    window.collect(world)  # as a checkpoint does in between
    means = window.take_means(world)
    weights = range(1, world.size + 1)
    expected = 1.5 * sum(weight * weight for weight in weights) / sum(weights)
    assert abs(means["loss"] - expected) < 1e-12


def the_averages_statistics_are_measured_alike_on_any_ranks(world: World) -> None:
    found = []
    for each in (world, ALONE):
        state = initial_state(tiny_config(), each, Precision("fp64", CPU))
        calibrate_batch_norm(state.average, 3, 8, each)  # type: ignore[arg-type]
        assert not state.average.training  # type: ignore[union-attr]
        found.append(state.average.state_dict())  # type: ignore[union-attr]
    for key, value in found[1].items():
        close(value, found[0][key], 1e-12, key)
    assert (found[0]["project.1.running_mean"] != 0).all()


def fid_and_kid_are_those_of_one_rank(world: World) -> None:
    together = Path(world.broadcast_object(tempfile.mkdtemp()))
    with patch.object(inception, "load_network", lambda path, device: FixedFeatures()):
        found = [
            feature_evaluator(folder, each, decoded).score(draw, with_floor=True)
            for folder, each in ((together, world), (Path(tempfile.mkdtemp()), ALONE))
        ]
    for one, other in zip(*found, strict=True):
        assert one.protocol.key == other.protocol.key
        assert (one.value, one.floor) == (other.value, other.floor)


# --- self-check -------------------------------------------------------------------------------------------------------


def a_rank_with_other_weights_is_named(world: World) -> None:
    network = nn.Linear(4, 4)
    copy_from_main(network, world)
    same = error_of(lambda: assert_equal_on_all_ranks(world, {"generator weights": checksum(network)}))
    if world.rank == world.size - 1:
        with torch.no_grad():  # the last bit of one weight
            network.weight[1, 2] = torch.nextafter(network.weight[1, 2], torch.tensor(9.0))
    other = error_of(lambda: assert_equal_on_all_ranks(world, {"generator weights": checksum(network)}))
    assert same == ""
    assert "generator weights differ" in other
    assert f"rank {world.size - 1} has" in other


def ranks_with_the_same_latents_are_named(world: World) -> None:
    own, shared = [(world.rank, 0.5)], [(min(world.rank, world.size - 2), 0.5)]
    apart = error_of(lambda: assert_disjoint(world, "latents", own))
    equal = error_of(lambda: assert_disjoint(world, "latents", shared))
    assert apart == ""
    assert "latents must differ" in equal
    assert f"ranks {world.size - 2} and {world.size - 1}" in equal


# --- data and pictures ------------------------------------------------------------------------------------------------


def painted(batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
    """A decoder whose image k is filled with k."""
    for batch in batches:
        yield torch.tensor(batch, dtype=torch.uint8)[:, None, None, None].expand(-1, 4, 4, 3)


def every_rank_caches_every_image(world: World) -> None:
    reports: list[int] = []
    cache = fill_cache(painted, 37, 4, world, reports.append)
    assert torch.equal(cache, next(painted([range(37)])))
    assert reports[-1] == share(37, world.rank, world.size)[1]


def an_image_damaged_on_one_rank_ends_all(world: World) -> None:
    def decode(batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        if world.rank == 1:
            raise UserError("image 7 cannot be decoded")
        yield from painted(batches)

    found = error_of(lambda: fill_cache(decode, 37, 4, world, lambda done: None))
    assert found == f"UserError: rank 1 of {world.size}: image 7 cannot be decoded"


def ranks_draw_the_grid_of_one_rank(world: World) -> None:
    precision = Precision("fp64", CPU)
    for count in (1, 3, 10):  # one: fewer than ranks
        grids = []
        for each in (world, ALONE):
            state = initial_state(tiny_config(), each, precision)
            before = copy.deepcopy(state.generator.state_dict())
            grids.append(FixedLatentSampler(5, count, 8, 32, each).draw(state.generator))
            assert state.generator.training
            assert all(torch.equal(value, before[name]) for name, value in state.generator.state_dict().items())
        assert grids[0].shape == (count, 3, 32, 32)
        assert (grids[0].int() - grids[1].int()).abs().max() <= 1


def leaving_the_group_ends_its_threads(world: World) -> None:
    """One that lived on could let go of a tensor while Python ends, and abort the rank."""
    importlib.import_module("torch._dynamo")  # as optimizers do: it brings in functions that hold on to the group
    world.close()
    threads = [path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")]
    assert not [name for name in threads if "gloo" in name], threads


CHECKS: tuple[Callable[[World], None], ...] = (
    sync_batch_norm_is_batch_norm_over_even_shares,
    sync_batch_norm_is_batch_norm_over_uneven_shares,
    sync_batch_norm_is_batch_norm_with_channels_last,
    sync_batch_norm_is_batch_norm_in_single_precision,
    sync_batch_norm_takes_half_precision_inputs,
    sync_batch_norm_keeps_precision_far_from_zero,
    sync_batch_norm_evaluates_like_batch_norm,
    steps_over_even_shares_are_those_of_one_rank,
    steps_over_uneven_shares_are_those_of_one_rank,
    every_engine_ends_with_the_same_weights,
    every_engine_reuses_fakes_alike,
    every_engine_takes_the_same_step_in_single_precision,
    a_step_takes_as_many_collectives_as_the_readme_says,
    gradients_are_averaged_over_ranks,
    every_rank_ends_with_the_same_bits,
    local_batch_norm_is_levelled_by_rank_0s_statistics,
    networks_keep_their_parameters_when_synchronised,
    a_mistake_on_one_rank_ends_all_with_the_same_line,
    a_mistake_on_all_ranks_is_told_without_naming_one,
    an_interruption_of_one_rank_is_one_of_all,
    together_without_a_mistake_goes_on,
    a_request_to_stop_heard_by_one_rank_is_obeyed_by_all_at_one_step,
    a_stop_file_and_a_time_limit_stop_all_ranks,
    figures_are_means_over_the_images_of_all_ranks,
    the_averages_statistics_are_measured_alike_on_any_ranks,
    fid_and_kid_are_those_of_one_rank,
    a_rank_with_other_weights_is_named,
    ranks_with_the_same_latents_are_named,
    every_rank_caches_every_image,
    an_image_damaged_on_one_rank_ends_all,
    ranks_draw_the_grid_of_one_rank,
    leaving_the_group_ends_its_threads,  # the last
)

ON_KERNELS = (
    *(check for check in CHECKS if check.__name__.startswith("sync_batch_norm")),
    steps_over_uneven_shares_are_those_of_one_rank,
)
"""Checks that Triton's interpreter goes through in seconds."""


def main(folder: Path) -> None:
    world = World.connect()
    outcome: dict[str, str | None] = {}
    for check in ON_KERNELS if os.environ.get("TRITON_INTERPRET") == "1" else CHECKS:
        try:
            check(world)
            outcome[check.__name__] = None
        except Exception:
            outcome[check.__name__] = traceback.format_exc()
    (folder / f"{world.rank}.json").write_text(json.dumps(outcome))
    world.close()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
