"""Other numbers of ranks."""

from __future__ import annotations

import torch

from dcgan_dist.config import DataConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World
from tests.faults.lab import Lab, Outcome
from tests.running import metric_rows

RANKS_OF_EACH_LEG = (4, 2, 1, 3)
LEG_BATCH, LEG_STEPS = 24, 40


def change_world_size(lab: Lab) -> Outcome:
    """Stopped three times and started on other numbers of ranks: the same images and, in fp64, the same figures."""
    folder, alone = lab.new_run(), lab.new_run()
    settings = ("--train.precision", "fp64", "--data.global_batch_size", LEG_BATCH, "--track.every_images", LEG_BATCH)
    ends = [*sorted(lab.chance.sample(range(5, LEG_STEPS - 5), 3)), LEG_STEPS]
    for ranks, end in zip(RANKS_OF_EACH_LEG, ends, strict=True):
        lab.finish(folder, *settings, "--train.total_images", end * LEG_BATCH, ranks=ranks)
    lab.finish(alone, *settings, "--train.total_images", LEG_STEPS * LEG_BATCH, ranks=1)
    rows, expected = metric_rows(folder), metric_rows(alone)
    assert [row["step"] for row in rows] == list(range(1, LEG_STEPS + 1))
    furthest = max(
        abs(row[name] - other[name])
        for row, other in zip(rows, expected, strict=True)
        for name in ("loss/discriminator", "loss/generator", "score/real", "score/fake")
    )
    assert furthest < 1e-8, f"figures differ by {furthest}"
    _assert_each_sample_once(ends)
    return Outcome(detail=f"ranks {RANKS_OF_EACH_LEG} until steps {ends}: figures differ by {furthest:.1e} at most")


def _assert_each_sample_once(ends: list[int]) -> None:
    """The ranks of all legs together see every image once an epoch."""
    seen: list[int] = []
    for step in range(LEG_STEPS):
        size = next(ranks for ranks, end in zip(RANKS_OF_EACH_LEG, ends, strict=True) if step < end)
        for rank in range(size):
            world = World(rank, size, rank, size, torch.device("cpu"))
            seen += BatchPlan.of(DataConfig(), 0, 256, LEG_BATCH, world).ids(step * LEG_BATCH)
    for start in range(0, len(seen) - 255, 256):
        assert sorted(seen[start : start + 256]) == list(range(256))
