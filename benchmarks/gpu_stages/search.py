"""What a search among cuDNN's deterministic kernels would bring, and whether it ends alike every time.

A run with `train.deterministic` takes those that cuDNN thinks to be the fastest; these are the same at every start. A
search times them first. It may only replace that if two searches choose the same ones, or else a resumed run would
differ in the last bits. Every try is a process of its own: one keeps what it has once chosen for a shape.
"""

from __future__ import annotations

import hashlib
import json
import statistics
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import torch

from benchmarks.gpu_check import ROOT, Options
from benchmarks.gpu_stages.steps import BATCHES, Contender
from benchmarks.ours import Ours
from dcgan_dist.config import TrainSection
from dcgan_dist.distributed.world import World
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE

TRIES = ("chosen", "searched", "searched again")


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """By batch size: milliseconds of a step in each try, and a checksum of its weights after the first steps."""
    found: dict[str, dict[str, Any]] = {}
    for name in TRIES:
        for batch, one in _in_a_process(options.device, name).items():
            of_batch = found.setdefault(batch, {"ms": {}, "weights": {}})
            of_batch["ms"][name], of_batch["weights"][name] = one["ms"], one["weights"]
        tell(found)
    return None


def _in_a_process(device: str, name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.gpu_stages.search", device, name]
    return json.loads(subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout)


def _try(device: torch.device, search: bool) -> dict[str, Any]:
    """See `run`."""
    found: dict[str, Any] = {}
    on_gpu = device.type == "cuda"
    for batch in BATCHES[device.type]:
        torch.manual_seed(0)  # of the pixels
        ours = Ours(None, batch, World(0, 1, 0, 1, device), TrainSection(), threads=2)
        way = Contender(ours.step, deterministic=True, search=search, ours=ours)
        way.run(STEPS_BEFORE_CAPTURE + 3 if on_gpu else 1)
        weights = b"".join(one.detach().cpu().numpy().tobytes() for one in ours.state.generator.state_dict().values())
        steps = max(3, int(0.3 / way.run(3))) if on_gpu else 1
        milliseconds = 1e3 * statistics.median(way.run(steps) for _ in range(5 if on_gpu else 1))
        found[str(batch)] = {"ms": milliseconds, "weights": hashlib.sha256(weights).hexdigest()}
        ours.update.close()
    return found


if __name__ == "__main__":
    kind, name = sys.argv[1:]
    print(json.dumps(_try(torch.device(kind, 0) if kind == "cuda" else torch.device("cpu"), name != TRIES[0])))
