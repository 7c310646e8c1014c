"""All ranks come to the same end, the same figures, and notice what differs."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest.mock import patch

import torch
from torch import nn

from dcgan_dist.base.errors import Interrupted, UserError
from dcgan_dist.distributed.gradients import copy_from_main
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.metrics import inception
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.figures import MetricWindow
from dcgan_dist.training.plan import assert_disjoint, assert_equal_on_all_ranks, checksum
from dcgan_dist.training.samples import calibrate_batch_norm
from dcgan_dist.training.state import initial_state
from tests.distributed.ranks.batch_norm import close
from tests.distributed.ranks.common import ALONE, CPU
from tests.distributed.ranks.weights import tiny_config
from tests.unit.metrics.test_metrics import FixedFeatures, decoded, draw, feature_evaluator


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
