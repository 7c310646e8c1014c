"""Every rank sees every image, and all draw one grid."""

from __future__ import annotations

import copy
import importlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.data.pixel_cache import fill_cache
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.training.samples import FixedLatentSampler
from dcgan_dist.training.state import initial_state
from tests.distributed.ranks.agreement import error_of
from tests.distributed.ranks.common import ALONE, CPU
from tests.distributed.ranks.weights import tiny_config


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
