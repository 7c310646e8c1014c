"""Decoding JPEGs with DALI: threads and the part for the JPEG engine, whether pixels keep still, and streaming."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from benchmarks.decoder_sweep import images_per_second
from benchmarks.gpu_check import Options
from benchmarks.streaming import BATCH, open_reader
from dcgan_dist.data import decode_dali
from dcgan_dist.data.decode_dali import GPU_DECODER, decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import sample_ids
from dcgan_dist.data.shard_format import read_manifest

ENGINE_LOADS = (0.0, 0.65, 1.0)
SIZE, ROUNDS, BATCHES = 64, 3, 16


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Images per second of every setting; what the JPEG engine does to pixels; streaming in random order."""
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    cores = len(os.sched_getaffinity(0))
    shards = MappedShards(options.shards, read_manifest(options.shards))
    found: dict[str, Any] = {"pixels": {}, "reading": [], "streaming": []}
    loads = ENGINE_LOADS if device.type == "cuda" else (0.0,)
    for load in loads:
        with patch.dict(decode_dali.GPU_DECODER, {"hw_decoder_load": load}):
            found["pixels"][str(load)] = pixels(shards, device)
            rate = _streaming(shards, device, cores)
        found["streaming"].append({"threads": cores, "engine": load, "images per second": rate})
        tell(found)
    threads = sorted({number for number in (2, 4, 8, 16) if number <= cores} | {cores})
    for number, load in itertools.product(threads, loads):
        take = open_reader(options.shards, device, number, {**GPU_DECODER, "hw_decoder_load": load})
        rate = images_per_second(take, ROUNDS, BATCHES)
        found["reading"].append({"threads": number, "engine": load, "images per second": rate})
        tell(found)
    return None


def pixels(shards: MappedShards, device: torch.device) -> dict[str, float]:
    """How far an image's pixels are off in another batch, and from Pillow's: the largest and the mean difference."""
    count = min(512, len(shards))
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))

    def decoded(ids: Tensor, batch: int) -> Tensor:
        parts = [part.tolist() for part in ids.split(batch)]
        return torch.cat([one.cpu() for one in decode_with_dali(shards, parts, SIZE, "short_side", device, 4)]).int()

    straight, shuffled = decoded(torch.arange(count), 128), decoded(order, 96)
    ids = [list(range(min(128, count)))]
    (pillow,) = decode_with_pillow(shards, ids, SIZE, "short_side", torch.device("cpu"), 4)
    off = (straight[: len(pillow)] - pillow.int()).abs()
    return {
        "in another batch": float((straight[order] - shuffled).abs().max()),
        "from Pillow's": float(off.max()),
        "from Pillow's, mean": float(off.float().mean()),
    }


def _streaming(shards: MappedShards, device: torch.device, threads: int) -> float:
    """Images per second in the order of training."""

    def batches() -> Iterator[list[int]]:
        for position in itertools.count(0, BATCH):
            yield sample_ids(0, len(shards), position, BATCH).tolist()

    stream = decode_with_dali(shards, batches(), SIZE, "short_side", device, threads)
    for _ in range(BATCHES):
        next(stream)
    start = time.perf_counter()
    for _ in range(2 * BATCHES):
        next(stream)
    if device.type == "cuda":
        torch.cuda.synchronize()
    rate = 2 * BATCHES * BATCH / (time.perf_counter() - start)
    stream.close()  # type: ignore[attr-defined]
    return rate
