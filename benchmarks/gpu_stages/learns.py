"""Does it learn? The same short run on the GPU and on the CPU, side by side; then a longer one at 64 pixels."""

from __future__ import annotations

import json
import os
import shutil
import statistics
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks.gpu_check import ROOT, Options
from dcgan_dist.base.grid import BORDER
from dcgan_dist.training.samples import spread

SHORT = {
    "data.image_size": 32,
    "data.global_batch_size": 64,
    "model.base_channels": 32,
    "optim.generator_lr": 4e-4,
    "optim.discriminator_lr": 4e-4,
    "ema.half_life_images": 4000,
    "evaluate.num_images": 1024,
    "track.every_images": 640,
}
TINY = SHORT | {"data.global_batch_size": 32, "model.base_channels": 8, "evaluate.num_images": 64}
LONG = {"data.image_size": 64, "data.global_batch_size": 128, "track.every_images": 12_800}
WITHOUT = {"track.report": "false", "track.tensorboard": "false", "track.wandb": "off"}
LARGEST_GRADIENT = 1000.0  # of the generator; healthy runs show 30 to 100
LEAST_DIVERSITY = 0.1  # of the grid's images, over that of real ones


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """What the runs came to, and what speaks against the GPU's; the grids are copied to the folder of results."""
    rehearsal = options.device == "cpu"
    images = 3_200 if rehearsal else 25_600
    short = (TINY if rehearsal else SHORT) | {"train.total_images": images, "evaluate.every_images": images}
    long = LONG | {"train.total_images": int(1_000_000 * min(1.0, options.minutes / 8))}
    runs = {"gpu": _start(options, "gpu", short), "cpu": _start(options, "cpu", short)}
    if not rehearsal:
        runs["64 px"] = _start(options, "64 px", long, after=runs["gpu"])
    found: dict[str, Any] = {name: _wait(options, name, process) for name, process in runs.items()}
    problems = _problems(found)
    found["why"] = "; ".join(problems)
    tell(found)
    for name in runs:
        shutil.rmtree(_folder(options, name), ignore_errors=True)
    return found["why"] or None


def _folder(options: Options, name: str) -> Path:
    return options.out / f"run-{name.replace(' ', '')}"


def _start(options: Options, name: str, settings: dict[str, Any], after: Any = None) -> subprocess.Popen[bytes]:
    """Starts a run, once the one on the same device is over."""
    if after is not None:
        after.wait()
    shutil.rmtree(_folder(options, name), ignore_errors=True)
    images = settings["train.total_images"]
    given = settings | WITHOUT | {
        "data.shards": options.shards, "run.dir": _folder(options, name), "sample.every_images": images,
        "checkpoint.every_images": images,
    }  # fmt: skip
    arguments = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    hidden = {"CUDA_VISIBLE_DEVICES": ""} if name == "cpu" else {}
    return subprocess.Popen([sys.executable, "-m", "dcgan_dist.train", *arguments], cwd=ROOT, env=os.environ | hidden)


def _wait(options: Options, name: str, process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """The run's figures: the first row, the mean of the last third of the rows, and what its last grid shows."""
    status = process.wait()
    folder = _folder(options, name)
    rows = [json.loads(line) for line in _text(folder / "metrics.jsonl").splitlines()]
    if status or not rows:
        return {"status": "failed", "exit status": status}
    told = json.loads(_text(folder / "status.json"))
    last = rows[-max(1, len(rows) // 3) :]
    grid = max((folder / "samples").glob("[0-9]*.png"), key=lambda path: int(path.stem))
    average = folder / "samples" / "ema" / grid.name
    shutil.copy(average, options.out / f"grid-{name.replace(' ', '')}.png")
    size = (LONG if name == "64 px" else SHORT)["data.image_size"]
    real = float(spread(cells(folder / "samples" / "real.png", size)))
    return {
        "status": told["status"],
        "warnings": told.get("warnings", []),
        "images": told["images_seen"],
        "first": _figures(rows[:1]),
        "last": _figures(last),
        "largest gradient": max((row.get("gradient/generator", 0.0) for row in rows), default=0.0),
        "images per second": statistics.median(row["speed/images_per_second"] for row in rows),
        "diversity": float(spread(cells(grid, size))) / real,
        "diversity of the average": float(spread(cells(average, size))) / real,
        "swd": rows[-1].get("quality/swd"),
    }


def _text(path: Path) -> str:
    return path.read_text() if path.exists() else ""


def _figures(rows: list[dict[str, float]]) -> dict[str, float]:
    names = ("loss/discriminator", "loss/generator", "score/real", "score/fake", "gradient/generator")
    return {name: statistics.fmean(row[name] for row in rows if name in row) for name in names if name in rows[-1]}


def cells(path: Path, size: int) -> torch.Tensor:
    """The images of a grid as it was saved: uint8 [n, 3, size, size]."""
    sheet = torch.from_numpy(np.asarray(Image.open(path)).copy()).permute(2, 0, 1)[:, BORDER:, BORDER:]
    step = size + BORDER
    rows = sheet.unfold(1, size, step).unfold(2, size, step)  # [3, rows, columns, size, size]
    return rows.permute(1, 2, 0, 3, 4).flatten(0, 1)


def _problems(found: dict[str, Any]) -> list[str]:
    """What shows that the GPU's run is not that of the CPU, or that a run has not learned."""
    problems = []
    for name, one in found.items():
        if one["status"] != "done":
            problems.append(f"the run '{name}' ended as {one['status']}")
            continue
        if signs := set(one["warnings"]) - set(found["cpu"].get("warnings", ())):  # short runs begin unbalanced
            problems.append(f"{name}: signs of collapse: {', '.join(sorted(signs))}")
        if not one["largest gradient"] < LARGEST_GRADIENT:
            problems.append(f"{name}: the generator's gradient reached {one['largest gradient']:.3g}")
        if not one["diversity"] > LEAST_DIVERSITY:
            problems.append(f"{name}: the images of the last grid hardly differ ({one['diversity']:.2f} of real ones)")
    if problems:
        return problems
    gpu, cpu = found["gpu"], found["cpu"]
    for figure in ("loss/discriminator", "loss/generator"):
        if abs(gpu["first"][figure] - cpu["first"][figure]) > 0.1 * cpu["first"][figure]:
            problems.append(f"{figure} begins with {gpu['first'][figure]:.3f}, on the CPU {cpu['first'][figure]:.3f}")
        if not 0.4 < gpu["last"][figure] / cpu["last"][figure] < 2.5:
            problems.append(f"{figure} ends with {gpu['last'][figure]:.3f}, on the CPU {cpu['last'][figure]:.3f}")
    if not gpu["diversity"] > 0.6 * cpu["diversity"]:
        problems.append(
            f"the grid is {gpu['diversity']:.2f} as varied as real images, on the CPU {cpu['diversity']:.2f}"
        )
    if gpu["swd"] and cpu["swd"] and gpu["swd"] > 1.5 * cpu["swd"]:
        problems.append(f"swd is {gpu['swd']:.1f}, on the CPU {cpu['swd']:.1f}")
    return problems
