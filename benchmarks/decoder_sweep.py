"""What makes DALI decode small images fastest: its threads and, on a GPU, the part for the JPEG engine and the memory.

    python -m benchmarks.decoder_sweep SHARDS

Prints a table, the fastest first. The pixels are the same throughout, or should be: tests/gpu checks ours.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.streaming import BATCH, open_reader

THREADS = (1, 2, 4, 8, 16)
ENGINE_LOADS = (0.0, 0.65, 0.9, 1.0)
"""`hw_decoder_load`: the part of a batch for the JPEG engine that some GPUs have; DALI's default is 0.65."""


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.decoder_sweep",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, help="folder made by data_prep.celeba")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=16, help=f"batches of {BATCH} a turn (default: %(default)s)")
    options = parser.parse_args()
    import torch
    from rich.console import Console
    from rich.table import Table

    device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")
    rows = []
    for threads, load, memory, decoder in settings(on_gpu=device.type == "cuda"):
        take = open_reader(options.shards, device, threads, decoder)
        rows.append((images_per_second(take, options.rounds, options.batches), str(threads), load, memory))
    table = Table("threads", "JPEG engine", "memory", "images/s", title=f"decoding to 64 pixels on {device.type}")
    for speed, *cells in sorted(rows, reverse=True):
        table.add_row(*cells, f"{speed:,.0f}")
    Console().print(table)


def settings(on_gpu: bool) -> Iterator[tuple[int, str, str, dict[str, Any]]]:
    """Threads, two labels, and settings of the decoder."""
    from dcgan_dist.data.decode_dali import GPU_DECODER

    threads = [number for number in THREADS if number <= len(os.sched_getaffinity(0))]
    if not on_gpu:
        yield from ((number, "", "", {}) for number in threads)
        return
    plain = {name: value for name, value in GPU_DECODER.items() if not name.endswith("_memory_padding")}
    memories: dict[str, dict[str, Any]] = {
        "ours": dict(GPU_DECODER),
        "DALI's": plain,
        "for 178x218": plain | {"preallocate_width_hint": 178, "preallocate_height_hint": 218},
    }
    for number, load, (memory, decoder) in itertools.product(threads, ENGINE_LOADS, memories.items()):
        yield number, f"{load:.0%}", memory, decoder | {"hw_decoder_load": load}


def images_per_second(take: Callable[[], object], rounds: int, batches: int) -> float:
    """Median over the rounds; one more warms up."""
    seconds = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        for _ in range(batches):
            take()
        seconds.append(time.perf_counter() - start)
    return BATCH * batches / statistics.median(seconds[1:])


if __name__ == "__main__":
    main()
