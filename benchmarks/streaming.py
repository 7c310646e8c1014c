# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# (DALI makes its types while it is imported.)
"""Streaming in our order beside DALI's own reader of the same shards, in turns, and the memory an epoch of it takes.

    python -m benchmarks.streaming SHARDS

Both decode, crop and resize by the same operators in the same executor; the reader goes through the tars in file order,
ours jumps. Both decode ahead while the other has its turn, so a turn should be many batches.
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

BATCH, SIZE = 128, 64


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.streaming", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path, help="folder made by data_prep.celeba")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=64, help="batches of 128 a turn (default: %(default)s)")
    options = parser.parse_args()
    import torch

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    threads = len(os.sched_getaffinity(0))
    contenders = {
        "fn.readers.webdataset": open_reader(options.shards, device, threads),
        "ours, in random order": _ours(options.shards, device, threads),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for turn in range(options.rounds + 1):
        for name, take in contenders.items():
            start = time.perf_counter()
            for _ in range(options.batches):
                take()
            if turn:
                seconds[name].append(time.perf_counter() - start)
    for name, times in seconds.items():
        print(f"{name:24}{BATCH * options.batches / statistics.median(times):10,.0f} images/s")
    theirs, ours = seconds.values()
    ratios = [one / other for one, other in zip(theirs, ours, strict=True)]
    print(f"ours reaches {statistics.median(ratios):.0%} ({min(ratios):.0%} to {max(ratios):.0%} turn by turn)")
    _watch_memory(contenders["ours, in random order"], options.shards)


def _ours(folder: Path, device: Any, threads: int) -> Callable[[], object]:
    from dcgan_dist.config import DataConfig
    from dcgan_dist.data.loader import open_decoder
    from dcgan_dist.data.mapped_shards import MappedShards
    from dcgan_dist.data.sample_order import sample_ids
    from dcgan_dist.data.shard_format import read_manifest
    from dcgan_dist.distributed.world import World

    shards = MappedShards(folder, read_manifest(folder))
    config = DataConfig(shards=str(folder), image_size=SIZE, decoder="dali")

    def batches() -> Iterator[list[int]]:
        for position in itertools.count(0, BATCH):
            yield sample_ids(0, len(shards), position, BATCH).tolist()

    stream = open_decoder(config, shards, World(0, 1, 0, 1, device), threads)(batches())
    return lambda: next(stream)


def open_reader(
    folder: Path, device: Any, threads: int, gpu_decoder: Mapping[str, Any] | None = None
) -> Callable[[], object]:
    """DALI's own reader of the shards; what is returned takes the next batch. `gpu_decoder`: ours if None."""
    import torch
    from nvidia.dali import fn, pipeline_def

    from dcgan_dist.data.decode_dali import GPU_DECODER, decode_and_resize, pipeline_options, to_torch

    tars = sorted(folder.glob("*.tar"))
    on_gpu = device.type == "cuda"

    @pipeline_def(batch_size=BATCH, **pipeline_options(device, threads))
    def reading() -> Any:
        encoded = fn.readers.webdataset(
            paths=[str(tar) for tar in tars],
            index_paths=[str(tar.with_suffix(".idx")) for tar in tars],
            ext=["jpg;png;webp"],
        )
        return decode_and_resize(
            encoded, SIZE, "short_side", on_gpu, GPU_DECODER if gpu_decoder is None else gpu_decoder
        )

    pipeline = reading()
    pipeline.build()
    copying = torch.cuda.Stream(device) if on_gpu else None
    return lambda: to_torch(pipeline.run()[0], copying)


def _watch_memory(take: Callable[[], object], folder: Path) -> None:
    """Prints the process's own memory (mapped shards left out) over an epoch."""
    from dcgan_dist.data.shard_format import read_manifest

    steps = max(4, read_manifest(folder).samples // BATCH)
    marks = []
    for step in range(steps):
        take()
        if step % (steps // 4) == 0:
            marks.append(f"{_own_memory_mib():,.0f}")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"memory over an epoch, MiB without mapped files: {' '.join(marks)} (peak with them {peak:,.0f})")


def _own_memory_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("RssAnon"):
            return int(line.split()[1]) / 1024
    return 0.0


if __name__ == "__main__":
    main()
