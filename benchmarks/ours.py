"""This project's own parts, put together for a benchmark as `training.assemble` does for a run."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import torch

from benchmarks.waiting import Waiting
from dcgan_dist.config import DataConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan, PixelSource, endless_batches, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import share
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.workforce import keep_freed_memory
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.training.by_position import StepLatents
from dcgan_dist.training.engine import choose_kernels, open_update
from dcgan_dist.training.state import initial_state


class Ours:
    """Networks, step and loader of one rank, on random pixels or, if there are shards, on images."""

    def __init__(self, shards: Path | None, batch: int, world: World, train: TrainSection, threads: int) -> None:
        """`batch`: images all ranks take in a step together."""
        keep_freed_memory()
        choose_kernels(train)
        self.world, self.threads = world, threads
        self.config = TrainConfig(data=DataConfig(shards=str(shards), global_batch_size=batch), train=train)
        name = best_precision(world.device) if train.precision == "auto" else train.precision
        self.precision = Precision(name, world.device)
        self.state = initial_state(self.config, world, self.precision)
        self.manifest = read_manifest(shards) if shards else None
        self.source: PixelSource | None = None
        self.waiting = Waiting()
        samples = self.manifest.samples if self.manifest else batch
        self.plan = BatchPlan(0, samples, batch, *share(batch, world.rank, world.size), flip=False)
        self.update = open_update(self.config, self.state, self.precision, self.plan, world)
        self.latents = StepLatents.of(self.config, self.plan, world, self.precision.weights)
        pixels = torch.randint(0, 256, (self.plan.count, 64, 64, 3), dtype=torch.uint8)
        self.pixels = pixels.to(world.device).permute(0, 3, 1, 2)

    def step(self) -> None:
        """One step on a batch that is there."""
        self.update(self.pixels, *self.latents.at(self.state.images_seen))
        self.state.images_seen += self.plan.global_batch

    def eager_step(self) -> None:
        """The same step operation by operation, for those who look into it: a replayed graph is one operation."""
        config = replace(self.config, train=replace(self.config.train, engine="ddp"))
        update = open_update(config, self.state, self.precision, self.plan, self.world)
        update(self.pixels, *self.latents.at(self.state.images_seen))

    def open(self) -> None:
        """Checks the shards and fills the cache."""
        assert self.manifest is not None
        shards = MappedShards(Path(self.config.data.shards), self.manifest)
        shards.verify(self.world.local_rank, self.world.local_size)
        decode = open_decoder(self.config.data, shards, self.world, self.threads)
        self.source = open_source(self.config.data, shards, decode, self.world, lambda done: None)

    def epoch(self) -> Iterator[int]:
        """As many images as there are; after each step the number of its images.

        As in a run, figures are read now and then and not after each step.
        """
        assert self.source is not None, "open() comes first"
        batches = endless_batches(self.source, self.plan, self.state.images_seen)
        steps = self.plan.num_samples // self.plan.global_batch
        for pixels in self.waiting.around(itertools.islice(batches, steps)):
            self.pixels = pixels
            self.step()
            yield self.plan.global_batch
        self.state.window.take_means(self.world)
