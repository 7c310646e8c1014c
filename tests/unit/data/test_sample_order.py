"""The order of samples, flips and latents: functions of the seed and the position, the same on any number of ranks."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice

import pytest
import torch

from dcgan_dist.base.counter_random import STREAMS, normal, stream_seed, words
from dcgan_dist.config import DataConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.sample_order import flips, sample_ids, share
from dcgan_dist.distributed.world import World
from dcgan_dist.training.by_position import StepLatents

CPU = torch.device("cpu")
NUM_SAMPLES = 103


def plan(rank: int, ranks: int, global_batch: int = 40, flip: bool = True) -> BatchPlan:
    world = World(rank, ranks, rank, ranks, CPU)
    return BatchPlan.of(DataConfig(flip=flip), 7, NUM_SAMPLES, global_batch, world)


# --- samples ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_an_epoch_goes_through_every_image_once(epoch: int) -> None:
    ids = sample_ids(0, NUM_SAMPLES, epoch * NUM_SAMPLES, NUM_SAMPLES)
    assert sorted(ids.tolist()) == list(range(NUM_SAMPLES))


def test_epochs_and_seeds_have_orders_of_their_own() -> None:
    orders = [sample_ids(seed, NUM_SAMPLES, epoch * NUM_SAMPLES, NUM_SAMPLES) for seed in (0, 1) for epoch in (0, 1, 2)]
    assert len({tuple(order.tolist()) for order in orders}) == 6


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
def test_the_ranks_together_take_the_global_batch(ranks: int) -> None:
    for step in range(8):  # 320 images: over the edges of three epochs
        position = step * 40
        ids = [sample for rank in range(ranks) for sample in plan(rank, ranks).ids(position)]
        flipped = torch.cat([plan(rank, ranks).flips(position) for rank in range(ranks)])
        assert ids == sample_ids(7, NUM_SAMPLES, position, 40).tolist()
        assert torch.equal(flipped, flips(7, position, 40))


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
def test_the_ranks_together_draw_the_latents_of_one_rank(ranks: int) -> None:
    alone = StepLatents(plan(0, 1), 10, World(0, 1, 0, 1, CPU), torch.float32).at(80)
    each = [
        StepLatents(plan(rank, ranks), 10, World(rank, ranks, 0, 1, CPU), torch.float32).at(80) for rank in range(ranks)
    ]
    for expected, parts in zip(alone[:2], zip(*(given[:2] for given in each), strict=True), strict=True):
        assert torch.equal(torch.cat(parts), expected)
    assert not torch.equal(*alone[:2])


def test_a_batch_may_reach_over_the_end_of_an_epoch_and_beyond_a_whole_one() -> None:
    ids = sample_ids(3, 10, 6, 27).tolist()
    epochs = [sample_ids(3, 10, epoch * 10, 10).tolist() for epoch in range(4)]
    assert ids == epochs[0][6:] + epochs[1] + epochs[2] + epochs[3][:3]


@pytest.mark.parametrize("ranks", [1, 2, 3, 4, 5, 8])
@pytest.mark.parametrize("global_batch", [8, 13, 128])
def test_shares_lie_end_to_end_and_differ_by_one_image_at_most(global_batch: int, ranks: int) -> None:
    shares = [share(global_batch, rank, ranks) for rank in range(ranks)]
    assert [first for first, _ in shares] == [sum(count for _, count in shares[:rank]) for rank in range(ranks)]
    assert sum(count for _, count in shares) == global_batch
    assert max(count for _, count in shares) - min(count for _, count in shares) <= 1


# --- flips ------------------------------------------------------------------------------------------------------------


def test_half_of_the_images_are_mirrored_chosen_anew_in_every_epoch() -> None:
    chosen = flips(0, 0, 200_000)
    assert abs(chosen.double().mean().item() - 0.5) < 0.005  # over four standard deviations
    first, second = chosen[:NUM_SAMPLES], chosen[NUM_SAMPLES : 2 * NUM_SAMPLES]
    assert not torch.equal(first, second)


def test_a_flip_belongs_to_its_position_however_it_is_asked_for() -> None:
    assert torch.equal(flips(5, 1000, 50), flips(5, 0, 2000)[1000:1050])


def test_nothing_is_mirrored_unless_asked_for() -> None:
    assert not plan(0, 1, flip=False).flips(0).any()


# --- numbers by position ----------------------------------------------------------------------------------------------


def splitmix64(state: int) -> Iterator[int]:
    """The generator as its authors print it (Steele et al. 2014, figure 16), in whole numbers of any size."""
    while True:
        state = (state + 0x9E3779B97F4A7C15) % 2**64
        bits = state
        bits = (bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9 % 2**64
        bits = (bits ^ (bits >> 27)) * 0x94D049BB133111EB % 2**64
        yield bits ^ (bits >> 31)


def expected_words(seed: int, stream: str, first: int, count: int) -> list[int]:
    """Each stream starts at an output of a generator that itself starts at the seed's first output."""
    seeded = next(splitmix64(seed))
    start = next(islice(splitmix64(seeded), STREAMS.index(stream), None))
    return list(islice(splitmix64(start), first, first + count))


def test_the_first_outputs_of_splitmix64_are_the_published_ones() -> None:
    published = [6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431]
    assert list(islice(splitmix64(1234567), 4)) == published


@pytest.mark.parametrize("seed", [0, 1, 12345, 2**63 - 1])
@pytest.mark.parametrize("stream", STREAMS)
def test_words_are_those_of_splitmix64(seed: int, stream: str) -> None:
    found = [word % 2**64 for word in words(seed, stream, 3, 20, CPU).tolist()]
    assert found == expected_words(seed, stream, 3, 20)


def test_words_far_along_a_stream_are_right_too() -> None:
    first = 10**12
    key = next(islice(splitmix64(next(splitmix64(9))), STREAMS.index("flip"), None))
    found = [word % 2**64 for word in words(9, "flip", first, 3, CPU).tolist()]
    start = (key + first * 0x9E3779B97F4A7C15) % 2**64
    assert found == list(islice(splitmix64(start), 3))


def test_no_two_streams_or_seeds_share_numbers() -> None:
    seen = [word for seed in range(5) for stream in STREAMS for word in words(seed, stream, 0, 1000, CPU).tolist()]
    assert len(set(seen)) == len(seen)


def test_seeds_for_generators_are_positive_and_differ() -> None:
    seeds = {stream_seed(seed, stream, index) for seed in range(5) for stream in STREAMS for index in range(5)}
    assert len(seeds) == 5 * len(STREAMS) * 5
    assert min(seeds) >= 0


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_a_row_of_normals_is_the_same_alone_or_among_others(size: int) -> None:
    together = normal(4, "fixed latents", 0, 50, size, CPU)
    assert together.shape == (50, size)
    alone = torch.cat([normal(4, "fixed latents", row, 1, size, CPU) for row in range(50)])
    assert torch.equal(together, alone)


def test_normals_are_normal() -> None:
    values = normal(0, "generator latents", 0, 20_000, 100, CPU).flatten()
    count = len(values)
    assert values.isfinite().all()
    assert abs(values.mean().item()) < 4 / math.sqrt(count)
    assert abs(values.var().item() - 1) < 4 * math.sqrt(2 / count)
    assert abs((values**3).mean().item()) < 4 * math.sqrt(15 / count)
    assert abs((values**4).mean().item() - 3) < 4 * math.sqrt(96 / count)
    for limit, share_within in ((0.5, 0.3829249), (1, 0.6826895), (2, 0.9544997), (4, 0.9999367)):
        error = math.sqrt(share_within * (1 - share_within) / count)
        assert abs((values.abs() < limit).double().mean().item() - share_within) < 4.5 * error


def test_normals_of_a_row_of_its_neighbours_and_of_other_streams_do_not_correlate() -> None:
    one = normal(0, "generator latents", 0, 20_000, 8, CPU)
    other = normal(0, "discriminator latents", 0, 20_000, 8, CPU)
    correlation = torch.corrcoef(torch.cat([one[:-1], one[1:], other[:-1]], dim=1).T)
    assert (correlation - torch.eye(24)).abs().max() < 5 / math.sqrt(20_000)
