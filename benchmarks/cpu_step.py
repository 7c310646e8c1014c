"""The tutorial's training step against ours on this CPU, turn by turn in two processes of one run.

    python -m benchmarks.cpu_step                     batch 128 at 64 pixels, all cores
    python -m benchmarks.cpu_step --batch 32 --rounds 3 --precision fp32

`python -m benchmarks` measures more: from files, other ways, several ranks.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
from pathlib import Path


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_step", description="Times the tutorial's training step against ours on this CPU."
    )
    parser.add_argument("--batch", type=int, default=128, help="images a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="turns of each that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--precision", default="auto", help="ours: auto, fp32 or bf16 (default: %(default)s)")
    options = parser.parse_args()
    import torch

    from benchmarks.__main__ import make_images
    from benchmarks.interleaved import Contenders, Setting
    from dcgan_dist.gan.precision import best_precision

    precision = best_precision(torch.device("cpu")) if options.precision == "auto" else options.precision
    with tempfile.TemporaryDirectory() as folder:
        jpegs, shards = make_images(Path(folder), options.batch)
        setting = Setting(jpegs, shards, options.batch, options.threads, "cpu", precision)
        contenders = Contenders(["tutorial", "ours"], setting)
        try:
            rows = [contenders.each("step") for _ in range(options.rounds + 1)][1:]  # the first warms up
        finally:
            contenders.close()
    for name, label in (("tutorial", "the tutorial's, fp32"), ("ours", f"ours, {precision}")):
        seconds = statistics.median(row[name] for row in rows)
        print(f"{label:24}{1e3 * seconds:10.1f} ms a step{options.batch / seconds:10.1f} images/s")
    ratios = [row["tutorial"] / row["ours"] for row in rows]
    middle, low, high = statistics.median(ratios), min(ratios), max(ratios)
    print(f"ours is {middle:.2f} times as fast (between {low:.2f} and {high:.2f}, turn by turn)")


if __name__ == "__main__":
    main()
