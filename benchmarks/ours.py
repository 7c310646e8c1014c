"""This project's own parts, put together for a benchmark as `training.assemble` does for a run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import torch

from benchmarks.waiting import Waiting
from dcgan_dist.config import DataConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan, CachedPixels, PixelSource, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import share
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.data.step_images import step_images
from dcgan_dist.distributed.workforce import keep_freed_memory
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.training.by_position import Rates, StepInputs, StepNumbers
from dcgan_dist.training.engine import CapturedUpdate, choose_kernels, open_update
from dcgan_dist.training.state import initial_state

BATCHES_IN_MEMORY = 16  # of random pixels, where there are no shards


class Ours:
    """Networks, step and loader of one rank, on random pixels or, if there are shards, on images."""

    def __init__(self, shards: Path | None, batch: int, world: World, train: TrainSection, threads: int) -> None:
        """`batch`: images all ranks take in a step together."""
        keep_freed_memory()
        choose_kernels(train)
        self.world, self.threads = world, threads
        # What an earlier round had decoded is not to be found by a later one.
        data = DataConfig(shards=str(shards), global_batch_size=batch, keep_pixels=False)
        self.config = TrainConfig(data=data, train=train)
        name = best_precision(world.device) if train.precision == "auto" else train.precision
        self.precision = Precision(name, world.device)
        self.state = initial_state(self.config, world, self.precision)
        self.manifest = read_manifest(shards) if shards else None
        self.waiting = Waiting()
        samples = self.manifest.samples if self.manifest else BATCHES_IN_MEMORY * batch
        self.plan = BatchPlan(0, samples, batch, *share(batch, world.rank, world.size), flip=False)
        # Random pixels, again and again: enough for steps before the shards are open.
        pixels = torch.randint(0, 256, (batch, 64, 64, 3), dtype=torch.uint8).to(world.device)
        self._take_from(CachedPixels(pixels[torch.arange(samples, device=world.device) % batch]))

    def _take_from(self, source: PixelSource) -> None:
        numbers = StepNumbers(self.config, self.plan, self.world, self.precision.weights)
        images = step_images(source, self.plan, self.state.images_seen)
        self.inputs = StepInputs(images, numbers, Rates([], 1, 0.0), self.state.images_seen)
        self.update = open_update(self.config, self.state, self.precision, self.inputs, self.plan, self.world)

    def step(self) -> None:
        """One step."""
        self.inputs.prepare(self.state.images_seen, 1)
        self.update()
        self.state.images_seen += self.plan.global_batch

    def eager_step(self) -> None:
        """The same step operation by operation, for those who look into it: a replayed graph is one operation."""
        self.inputs.prepare(self.state.images_seen, 1)
        (self.update.eager if isinstance(self.update, CapturedUpdate) else self.update)()
        self.state.images_seen += self.plan.global_batch

    def open(self) -> None:
        """Checks the shards and fills the cache."""
        assert self.manifest is not None
        shards = MappedShards(Path(self.config.data.shards), self.manifest)
        shards.verify(self.world.local_rank, self.world.local_size)
        decode = open_decoder(self.config.data, shards, self.world, self.threads)
        self._take_from(open_source(self.config.data, shards, decode, self.world, lambda done: None))

    def epoch(self) -> Iterator[int]:
        """As many images as there are; after each step the number of its images.

        As in a run, figures are read now and then and not after each step.
        """
        for _ in range(self.plan.num_samples // self.plan.global_batch):
            with self.waiting.meanwhile():
                self.inputs.prepare(self.state.images_seen, 1)
            self.update()
            self.state.images_seen += self.plan.global_batch
            yield self.plan.global_batch
        self.state.window.take_means(self.world)
