"""Streaming from a URL beside streaming from the local folder of the same shards, in turns.

    python -m benchmarks.url_streaming SHARDS URL [--limit-gib GIB]

Both are decoded in training's order. The cache is empty at first: what opening it and the first batch take is printed.
Both decode ahead while the other has its turn, so a turn should be many batches.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dcgan_dist.data.step_images import StreamedImages

BATCH, SIZE = 128, 64


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.url_streaming",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("shards", type=Path, help="folder made by data_prep")
    parser.add_argument("url", help="where the same shards are")
    parser.add_argument("--limit-gib", type=float, help="data.cache_limit_gib; default: none")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each (default: %(default)s)")
    parser.add_argument("--batches", type=int, default=32, help="batches of 128 a turn (default: %(default)s)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        streams = {place: _opened(place, cache, options.limit_gib) for place in (str(options.shards), options.url)}
        seconds: dict[str, list[float]] = {place: [] for place in streams}
        for turn in range(options.rounds + 1):
            for place, images in streams.items():
                start = time.perf_counter()
                for _ in range(options.batches):
                    images.prepare(0, 1)  # the next, whichever that is
                if turn:
                    seconds[place].append(time.perf_counter() - start)
    for place, times in seconds.items():
        print(f"{place:32}{BATCH * options.batches / statistics.median(times):10,.0f} images/s")
    local, remote = seconds.values()
    ratios = [one / other for one, other in zip(local, remote, strict=True)]
    print(f"the URL reaches {statistics.median(ratios):.0%} ({min(ratios):.0%} to {max(ratios):.0%} turn by turn)")


def _opened(place: str, cache: str, limit_gib: float | None) -> StreamedImages:
    """The images of a place; prints how long the first batch takes."""
    from dcgan_dist.config import DataConfig
    from dcgan_dist.data.loader import BatchPlan, open_data
    from dcgan_dist.data.step_images import StreamedImages
    from dcgan_dist.distributed.world import World

    world, begin = World.connect(), time.perf_counter()
    config = DataConfig(shards=place, image_size=SIZE, cache_dir=cache, cache_limit_gib=limit_gib)
    data = open_data(config, world, len(os.sched_getaffinity(0)))
    opened = time.perf_counter()
    images = StreamedImages(data.decode, BatchPlan.of(config, 0, data.manifest.samples, BATCH, world), images_seen=0)
    images.prepare(0, 1)
    print(f"{place:32}opened in {opened - begin:.1f} s, first batch {time.perf_counter() - opened:.1f} s later")
    return images


if __name__ == "__main__":
    main()
