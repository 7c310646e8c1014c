"""A run with its defaults from the command to the end, and where its time goes."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

from benchmarks.gpu_check import ROOT, Options

IMAGES = {"cuda": 500_000, "cpu": 640}
SMALL = {"data.image_size": 32, "model.base_channels": 8, "data.global_batch_size": 32}


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Seconds from the command to the end, and by stage, as status.json tells them."""
    folder = options.out / "run-whole"
    shutil.rmtree(folder, ignore_errors=True)
    settings: dict[str, Any] = {
        "data.shards": options.shards, "run.dir": folder, "train.total_images": IMAGES[options.device],
        "track.wandb": "off", "data.keep_pixels": "false",
    }  # fmt: skip
    settings |= SMALL if options.device == "cpu" else {}
    arguments = [text for key, value in settings.items() for text in (f"--{key}", str(value))]
    command = [sys.executable, "-m", "dcgan_dist.train", *arguments]
    began = time.monotonic()
    status = subprocess.run(command, cwd=ROOT, env=os.environ).returncode
    seconds = time.monotonic() - began
    told = json.loads((folder / "status.json").read_text()) if (folder / "status.json").exists() else {}
    tell(
        {
            "from command to end": seconds,
            "images": told.get("images_seen"),
            "status": told.get("status"),
            "stages": told.get("seconds", {}),
            **({} if status == 0 else {"why": f"the run ended with {status}"}),
        }
    )
    shutil.rmtree(folder, ignore_errors=True)
    return None if status == 0 else f"the run ended with {status}"
