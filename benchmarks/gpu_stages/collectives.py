"""A step with every collective that several ranks have, over NCCL, by one rank: do they record into the CUDA graph?"""

from __future__ import annotations

import os
import statistics
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from benchmarks.gpu_check import Options
from benchmarks.gpu_stages.steps import Contender
from benchmarks.ours import Ours
from dcgan_dist.base.errors import in_one_line
from dcgan_dist.config import TrainSection
from dcgan_dist.distributed.world import World
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE, CapturedUpdate

BATCHES = {"cuda": (128, 1024), "cpu": (8,)}


@dataclass(frozen=True)
class OneOfMany(World):
    """A rank that exchanges everything with others that are not there; it counts how often."""

    @property
    def has_peers(self) -> bool:
        return True

    def alone(self) -> World:
        return self

    def sum(self, tensor: Tensor) -> Tensor:
        COUNTED.append("sum")
        return super().sum(tensor)

    def gather(self, tensor: Tensor, into: Tensor | None = None) -> Tensor:
        COUNTED.append("gather")
        return super().gather(tensor, into)


COUNTED: list[str] = []


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Times of a step with and without collectives, how many there are, and whether the graph holds them."""
    on_gpu = options.device == "cuda"
    device = torch.device("cuda", 0) if on_gpu else torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        os.environ.setdefault("NCCL_DEBUG", "WARN")
        dist.init_process_group(
            *("nccl" if on_gpu else "gloo", f"file://{folder}/store"),
            rank=0,
            world_size=1,
            device_id=device if on_gpu else None,  # NCCL takes no memory of its own before it has its connections
        )
        found: dict[str, Any] = {}
        problem = None
        for batch in BATCHES[options.device]:
            found[str(batch)] = _at(batch, device)
            if on_gpu and not found[str(batch)]["recorded"]:
                problem = "the collectives could not be recorded into a CUDA graph; see collectives.log"
            tell(found | ({"why": problem} if problem else {}))
        dist.destroy_process_group()
    return problem


def _at(batch: int, device: torch.device) -> dict[str, Any]:
    ways: dict[str, Contender] = {}
    result: dict[str, Any] = {}
    for name, kind in (("alone", World), ("one of many", OneOfMany), ("in symmetric memory", OneOfMany)):
        train = TrainSection(symmetric_memory=name == "in symmetric memory")
        try:
            ours = Ours(None, batch, kind(0, 1, 0, 1, device), train, threads=2)
        except RuntimeError as error:
            if not train.symmetric_memory:
                raise
            result["no symmetric memory"] = in_one_line(error, 200)
            continue
        ways[name] = Contender(ours.step, True, False, ours)
    for way in ways.values():
        way.run(1)
    COUNTED.clear()
    ways["one of many"].run(1)
    collectives = len(COUNTED)
    for way in ways.values():
        way.run(STEPS_BEFORE_CAPTURE + 3 if device.type == "cuda" else 1)
    steps = max(3, int(0.2 / ways["alone"].run(2))) if device.type == "cuda" else 1
    turns = [{name: way.run(steps) for name, way in ways.items()} for _ in range(5)]
    update = ways["one of many"].ours.update  # type: ignore[union-attr]
    result |= {
        "collectives": collectives,
        "recorded": isinstance(update, CapturedUpdate) and update.is_captured,
        **{f"ms {name}": 1e3 * statistics.median(turn[name] for turn in turns) for name in ways},
    }
    for way in ways.values():
        if way.ours:
            way.ours.update.close()
    return result
