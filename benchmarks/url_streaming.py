"""Streaming from a URL beside streaming from the local folder of the same shards, in turns.

    python -m benchmarks.url_streaming SHARDS URL [--limit-gib GIB]

A turn decodes some epochs in training's order: from the folder, from the URL with an empty cache, and again with
what is in the cache then (with a limit it has to be fetched again in part).
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

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
    parser.add_argument("--rounds", type=int, default=5, help="turns of each (default: %(default)s)")
    parser.add_argument("--epochs", type=int, default=5, help="epochs a turn (default: %(default)s)")
    options = parser.parse_args()
    ways = ("local folder", "URL, empty cache", "URL, as it is then")
    speeds: dict[str, list[float]] = {way: [] for way in ways}
    for _ in range(options.rounds + 1):
        with tempfile.TemporaryDirectory() as cache:
            for way in ways:
                place = str(options.shards) if way == ways[0] else options.url
                speeds[way].append(_images_a_second(place, cache, options.limit_gib, options.epochs))
    local, *_ = (values[1:] for values in speeds.values())  # the first turn warms the system's caches
    for way, values in speeds.items():
        ratios = [one / other for one, other in zip(values[1:], local, strict=True)]
        print(
            f"{way:20}{statistics.median(values[1:]):10,.0f} images/s  {statistics.median(ratios):.0%} of local "
            f"({min(ratios):.0%} to {max(ratios):.0%})"
        )


def _images_a_second(place: str, cache: str, limit_gib: float | None, epochs: int) -> float:
    """Decodes some epochs: from opening the shards to the last image."""
    from dcgan_dist.config import DataConfig
    from dcgan_dist.data.loader import BatchPlan, open_data
    from dcgan_dist.data.step_images import StreamedImages
    from dcgan_dist.distributed.world import World

    config = DataConfig(shards=place, image_size=SIZE, cache_dir=cache, cache_limit_gib=limit_gib)
    world = World.connect()
    begin = time.perf_counter()
    data = open_data(config, world, len(os.sched_getaffinity(0)))
    plan = BatchPlan.of(config, 0, data.manifest.samples, BATCH, world)
    images, steps = StreamedImages(data.decode, plan, 0), epochs * data.manifest.samples // BATCH
    for step in range(steps):
        images.prepare(step * BATCH, 1)
    return steps * BATCH / (time.perf_counter() - begin)


if __name__ == "__main__":
    main()
