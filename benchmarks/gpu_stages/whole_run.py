"""A run with its defaults from the command to the end, and where its time goes; then another, whose pixels are kept."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_check import ROOT, Options

IMAGES = {"cuda": 500_000, "cpu": 640}
SMALL = {"data.image_size": 32, "model.base_channels": 8, "data.global_batch_size": 32}
STARTS = ("first start", "pixels on disk")


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """By start: seconds from the command to the end, and by stage, as status.json tells them."""
    pixels, found = options.out / "pixels", {}
    shutil.rmtree(pixels, ignore_errors=True)
    for start in STARTS if options.device == "cuda" else STARTS[:1]:
        found[start] = _run(options, pixels)
        if found[start]["exit status"] != 0:
            tell({**found, "why": f"the run ended with {found[start]['exit status']}"})
            break
        tell(found)
    shutil.rmtree(pixels, ignore_errors=True)
    return None if all(one["exit status"] == 0 for one in found.values()) else "a run failed"


def _run(options: Options, pixels: Path) -> dict[str, Any]:
    folder = options.out / "run-whole"
    shutil.rmtree(folder, ignore_errors=True)
    settings: dict[str, Any] = {
        "data.shards": options.shards, "data.cache_dir": pixels, "run.dir": folder,
        "train.total_images": IMAGES[options.device], "track.wandb": "off",
    }  # fmt: skip
    settings |= SMALL if options.device == "cpu" else {}
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "dcgan_dist.train", *arguments]
    began = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env=os.environ).returncode
    seconds = time.monotonic() - began
    told = json.loads((folder / "status.json").read_text()) if (folder / "status.json").exists() else {}
    shutil.rmtree(folder, ignore_errors=True)
    return {
        "from command to end": seconds,
        "images": told.get("images_seen"),
        "exit status": status,
        "stages": told.get("seconds", {}),
    }
