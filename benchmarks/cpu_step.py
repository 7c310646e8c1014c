"""The tutorial's training step against ours on this CPU, turn by turn in two processes of one run.

    python -m benchmarks.cpu_step                     batch 128 at 64 pixels, all cores
    python -m benchmarks.cpu_step --batch 32 --rounds 3 --out benchmarks/results

Each process keeps its own memory settings, and both see the same drifts of the machine's speed.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import time
from collections.abc import Callable
from datetime import date
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


def main() -> None:
    """Measures and prints a table; writes JSON if asked to."""
    arguments = _parse()
    context = multiprocessing.get_context("spawn")
    workers = {name: _start(context, build, arguments) for name, build in (("tutorial", _tutorial), ("ours", _ours))}
    seconds: dict[str, list[float]] = {name: [] for name in workers}
    precision = ""
    for turn in range(arguments.rounds + 1):
        for name, connection in workers.items():
            connection.send("step")
            taken, detail = connection.recv()
            precision = detail if name == "ours" else precision
            if turn > 0:  # the first turn warms up
                seconds[name].append(taken)
    for connection in workers.values():
        connection.send("end")
    result = _summary(seconds, precision, arguments)
    _print(result)
    if arguments.out:
        path = Path(arguments.out) / f"{date.today()}-cpu-step.json"
        path.write_text(json.dumps(result, indent=1) + "\n")
        print(f"written to {path}")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.cpu_step", description="Times the tutorial's training step against ours on this CPU."
    )
    parser.add_argument("--batch", type=int, default=128, help="images a step (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=7, help="steps of each that count (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=len(os.sched_getaffinity(0)), help="default: all cores")
    parser.add_argument("--precision", default="auto", help="ours: auto, fp32 or bf16 (default: %(default)s)")
    parser.add_argument("--out", help="folder for the measured figures as JSON")
    return parser.parse_args()


def _start(context: Any, build: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> Connection:
    here, there = context.Pipe()
    context.Process(target=_serve, args=(there, build, arguments), daemon=True).start()
    return here


def _serve(connection: Connection, build: Callable[[argparse.Namespace], Any], arguments: argparse.Namespace) -> None:
    import torch

    torch.set_num_threads(arguments.threads)
    step, detail = build(arguments)
    while connection.recv() == "step":
        start = time.perf_counter()
        step()
        connection.send((time.perf_counter() - start, detail))


def _tutorial(arguments: argparse.Namespace) -> tuple[Callable[[], object], str]:
    import torch

    from benchmarks.tutorial_step import TutorialStep

    step = TutorialStep()
    images = torch.rand(arguments.batch, 3, 64, 64) * 2 - 1
    return lambda: step(images), "fp32"


def _ours(arguments: argparse.Namespace) -> tuple[Callable[[], object], str]:
    import torch

    from dcgan_dist.config import TrainConfig
    from dcgan_dist.counter_random import normal
    from dcgan_dist.distributed.world import World
    from dcgan_dist.gan.precision import Precision, best_precision
    from dcgan_dist.gan.step import GanStep
    from dcgan_dist.host import keep_freed_memory
    from dcgan_dist.state import initial_state

    keep_freed_memory()
    device = torch.device("cpu")
    name = best_precision(device) if arguments.precision == "auto" else arguments.precision
    precision = Precision(name, device)
    state = initial_state(TrainConfig(), World(0, 1, 0, 1, device), precision)
    step = GanStep(
        state.generator,
        state.discriminator,
        state.generator_optimizer,
        state.discriminator_optimizer,
        state.generator_scaler,
        state.discriminator_scaler,
        precision,
    )
    pixels = torch.randint(0, 256, (arguments.batch, 64, 64, 3), dtype=torch.uint8).permute(0, 3, 1, 2)

    def run() -> float:
        first, second = (
            normal(0, stream, 0, arguments.batch, 100, device).float()
            for stream in ("discriminator latents", "generator latents")
        )
        return step(pixels, first, second).generator_loss.item()

    return run, name


def _summary(seconds: dict[str, list[float]], precision: str, arguments: argparse.Namespace) -> dict[str, Any]:
    import torch

    ratios = [slow / fast for slow, fast in zip(seconds["tutorial"], seconds["ours"], strict=True)]
    return {
        "date": str(date.today()),
        "cpu": _cpu_name(),
        "cores": arguments.threads,
        "torch": torch.__version__,
        "batch": arguments.batch,
        "our precision": precision,
        "tutorial milliseconds": round(1e3 * statistics.median(seconds["tutorial"]), 1),
        "our milliseconds": round(1e3 * statistics.median(seconds["ours"]), 1),
        "tutorial images per second": round(arguments.batch / statistics.median(seconds["tutorial"]), 1),
        "our images per second": round(arguments.batch / statistics.median(seconds["ours"]), 1),
        "times as fast": round(statistics.median(ratios), 2),
        "lowest and highest ratio": [round(min(ratios), 2), round(max(ratios), 2)],
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor()


def _print(result: dict[str, Any]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title=f"one training step, batch {result['batch']}, {result['cores']} cores of {result['cpu']}")
    for column in ("", "ms a step", "images/s"):
        table.add_column(column, justify="left" if not column else "right")
    for label, who in (("the tutorial's, fp32", "tutorial"), (f"ours, {result['our precision']}", "our")):
        table.add_row(label, str(result[f"{who} milliseconds"]), str(result[f"{who} images per second"]))
    Console().print(table)
    low, high = result["lowest and highest ratio"]
    print(f"ours is {result['times as fast']} times as fast (between {low} and {high}, turn by turn)")


if __name__ == "__main__":
    main()
