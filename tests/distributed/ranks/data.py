"""Every rank sees every image, and all draw one grid."""

from __future__ import annotations

import copy
import importlib
import logging
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from unittest.mock import patch

import torch
from torch import Tensor

from dcgan_dist.base.errors import Interrupted, UserError
from dcgan_dist.base.files import atomic_write
from dcgan_dist.base.waiting import Advance
from dcgan_dist.data import pixel_cache, pixel_file
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.pixel_cache import KeptPixels, fill_cache
from dcgan_dist.data.pixel_file import DamagedPixels, PixelSet
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.tracking.tracker import Trackers
from dcgan_dist.training.samples import AverageStatistics, FixedLatentSampler, Samples
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


def a_damaged_image_among_those_that_rank_0_shows_ends_all(world: World) -> None:
    def decode(batches: Iterable[Sequence[int]]) -> Iterator[Tensor]:
        raise UserError("image 3 cannot be decoded")

    sampler = FixedLatentSampler(0, 8, 4, 32, world)
    samples = Samples(sampler, AverageStatistics(0, 4, world), RunFolder(Path("nowhere")), Trackers([]))
    found = error_of(lambda: samples.real(decode, BatchPlan(0, 37, 8, 0, 8, False), save=False))
    assert found == f"UserError: rank 0 of {world.size}: image 3 cannot be decoded"


def small_blocks() -> AbstractContextManager[object]:
    """Blocks of 160 bytes, two a piece: 37 images of 4 pixels have twelve."""
    sizes = ((pixel_file, "BLOCK_BYTES", 160), (pixel_file, "PIECE_BYTES", 320), (pixel_cache, "PIECE_BYTES", 320))
    stack = ExitStack()
    for module, name, size in sizes:
        stack.enter_context(patch.object(module, name, size))
    return stack


def kept_pixels(world: World, advance: Advance = lambda done: None) -> KeptPixels:
    """A file that is not there yet, in a folder that all ranks see."""
    folder = Path(world.broadcast_object(tempfile.mkdtemp() if world.is_main else ""))
    return KeptPixels(folder, PixelSet("painted", "all", "0" * 64, 37, 4, "squash", "none"), world, advance)


def ranks_of_a_node_share_one_file_of_pixels(world: World) -> None:
    with small_blocks():
        kept = kept_pixels(world)
        absent = kept.problems()
        first = kept.keep(fill_cache(painted, 37, 4, world, kept.advance), absent)
        found = kept.problems()
        second = kept.load()
        mapped = Path("/proc/self/maps").read_text().count(str(kept.path))
        names = world.gather_objects(sorted(path.name for path in kept.folder.iterdir()))
    assert [type(problem) for problem in absent] == [FileNotFoundError] * world.size
    assert found == [None] * world.size
    assert torch.equal(first, next(painted([range(37)])))
    assert torch.equal(second, first)
    assert mapped == 2, "a rank has a copy of its own"
    assert names == [[kept.path.name]] * world.size


def damage_that_one_rank_finds_is_repaired_for_all(world: World) -> None:
    with small_blocks():
        kept = kept_pixels(world)
        kept.keep(fill_cache(painted, 37, 4, world, kept.advance), kept.problems())
        sound = world.together(kept.path.read_bytes)
        damaged = bytearray(sound)
        damaged[4096 + 160] ^= 1  # the second block is the second rank's
        world.on_main(replace_content, kept.path, bytes(damaged))
        found = kept.problems()
        with catching_warnings() as lines:
            repaired = kept.keep(fill_cache(painted, 37, 4, world, kept.advance), found)
        again = kept.problems()
    assert [isinstance(problem, DamagedPixels) for problem in found] == [rank == 1 for rank in range(world.size)]
    assert torch.equal(repaired, next(painted([range(37)])))
    assert again == [None] * world.size
    assert kept.path.read_bytes() == sound
    assert len(lines) == int(world.is_main), lines


def replace_content(path: Path, content: bytes) -> None:
    """In a new file: the old one is still mapped."""
    with atomic_write(path) as file:
        file.write(content)


@contextmanager
def catching_warnings() -> Iterator[list[str]]:
    lines: list[str] = []
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: lines.append(record.getMessage())  # type: ignore[method-assign]
    logging.getLogger("dcgan_dist").addHandler(handler)
    yield lines
    logging.getLogger("dcgan_dist").removeHandler(handler)


def a_stop_while_the_pixels_are_written_stops_all_and_leaves_nothing(world: World) -> None:
    calls: list[int] = []

    def stop_one_rank(done: int) -> None:
        calls.append(done)
        if len(calls) == 3 and world.rank == world.size - 1:
            raise Interrupted("SIGTERM")

    with small_blocks():
        kept = kept_pixels(world, stop_one_rank)
        cache = next(painted([range(37)])).contiguous()
        found = error_of(lambda: kept.keep(cache, []))
        left = world.gather_objects(list(kept.folder.iterdir()))[0]
    assert found == "Interrupted: SIGTERM"
    assert left == []


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
