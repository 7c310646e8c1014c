"""How a step scales over the ranks that are there, and a model of it that says what more ranks would do.

    step = overhead + images x seconds per image
         + collectives x latency x log2(ranks) + gradient bytes x 2 (ranks - 1) / ranks / bandwidth

Overhead and seconds per image come from one rank at two batch sizes, latency and bandwidth from sums of 4 KiB and of
the gradients' size over the ranks that are there; latency is taken to grow with the logarithm of the number of ranks,
as in a tree. What the model says of the ranks that are there is set beside what they took.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

COLLECTIVES_A_STEP = 26  # with the defaults at 64 pixels; a test counts them
FAR = (8, 64, 512)
EFFICIENT = 0.9  # of its speed alone


@dataclass(frozen=True)
class Model:
    """Times of one step; see above."""

    overhead: float
    seconds_per_image: float
    latency: float
    """Seconds of a small sum over two ranks."""
    bandwidth: float
    """Bytes per second of a large one, each byte counted 2 (W - 1) / W times."""
    gradient_bytes: int

    def step(self, images_a_rank: float, ranks: int) -> float:
        """Seconds of a step."""
        compute = self.overhead + images_a_rank * self.seconds_per_image
        if ranks == 1:
            return compute
        waiting = COLLECTIVES_A_STEP * self.latency * math.log2(ranks)
        return compute + waiting + self.gradient_bytes * 2 * (ranks - 1) / ranks / self.bandwidth

    def batch_for(self, share: float, ranks: int) -> int | None:
        """Images a rank at which each of so many ranks keeps this share of its speed alone; None: at no batch.

        Work may take as long as `share` / (1 - `share`) times the waiting: the waiting does not grow with the batch.
        """
        if not self.seconds_per_image:
            return None
        waiting = self.step(0, ranks) - self.overhead
        return max(1, math.ceil((share / (1 - share) * waiting - self.overhead) / self.seconds_per_image))

    def images_per_second(self, images_a_rank: float, ranks: int) -> float:
        """Of all ranks together."""
        return images_a_rank * ranks / self.step(images_a_rank, ranks)


def measure(ranks: int, batch: int, threads: int, steps: int) -> dict[str, float]:
    """One torchrun with so many ranks: seconds of a step at `batch` a rank (weak) and in all (strong), and of sums.

    One rank measures half of `batch` too, and more ranks than images no strong step.
    """
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "measured.json"
        command = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        command += ["-m", "benchmarks.scaling_ranks", str(out), str(batch), str(threads), str(steps)]
        subprocess.run(command, check=True, capture_output=True)
        return json.loads(out.read_text())


def fit(measured: dict[int, dict[str, float]], batch: int) -> Model:
    """The model from one rank and the largest number of ranks."""
    alone, most = measured[1], measured[max(measured)]
    ranks = max(measured)
    half = max(1, batch // 2)
    per_image = max(alone["weak"] - alone["half"], 0.0) / (batch - half) if batch > half else 0.0
    overhead = alone["weak"] - batch * per_image
    if overhead < 0 or batch == half:  # two noisy points: the line then goes through the origin and the better one
        overhead, per_image = 0.0, alone["weak"] / batch
    bandwidth = most["gradient bytes"] * 2 * (ranks - 1) / ranks / max(most["large sum"] - most["small sum"], 1e-9)
    return Model(
        overhead=overhead,
        seconds_per_image=per_image,
        latency=most["small sum"] / math.log2(ranks),
        bandwidth=bandwidth,
        gradient_bytes=int(most["gradient bytes"]),
    )


def study(largest: int, batch: int, cores: int, steps: int) -> dict[str, Any]:
    """Measures one to `largest` ranks, each on its own share of the cores, and predicts more."""
    counts = [ranks for ranks in (1, 2, 4, 8) if ranks <= largest]
    measured = {ranks: measure(ranks, batch, max(1, cores // counts[-1]), steps) for ranks in counts}
    found: dict[str, Any] = {"images a rank": batch, "measured": measured}
    if len(counts) > 1:
        model = fit(measured, batch)
        found["model"] = vars(model)
        found["predicted images per second, weak"] = {
            ranks: round(model.images_per_second(batch, ranks), 1) for ranks in (*counts, *FAR)
        }
        found["images a rank for 90 % of its speed alone"] = {ranks: model.batch_for(EFFICIENT, ranks) for ranks in FAR}
        found["predicted images per second, strong"] = {
            ranks: round(model.images_per_second(batch / ranks, ranks), 1)
            for ranks in (*counts, *FAR)
            if ranks <= batch
        }
    return found
