"""Where and with what a run trains: versions, hardware, ranks, data. For the report and for W&B."""

from __future__ import annotations

import contextlib
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

import torch

import dcgan_dist
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.world import World


def describe_environment(
    world: World, manifest: Manifest, precision: str, global_batch: int, total_images: int
) -> dict[str, Any]:
    """Names with their units, and values for JSON. Every rank must call it; all get the same but for `commit`."""
    hosts = dict.fromkeys(world.gather_objects(socket.gethostname()))
    devices = dict.fromkeys(world.gather_objects(device_name(world.device)))
    return {
        "dcgan_dist": dcgan_dist.__version__,
        "commit": _commit() if world.is_main else "",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": world.device.type,
        "device_name": ", ".join(devices),
        "ranks": world.size,
        "hosts": ", ".join(hosts),
        "precision": precision,
        "global_batch": global_batch,
        "total_images": total_images,
        "dataset": f"{manifest.dataset} ({manifest.split})",
        "dataset_images": manifest.samples,
        "dataset_fingerprint": manifest.fingerprint,
    }


def device_name(device: torch.device) -> str:
    """The hardware's name as its maker writes it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """What git calls this checkout, with -dirty if it was changed; nothing where the code lies in no checkout."""
    folder = Path(dcgan_dist.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""
