"""What a node can be asked before a run without starting a rank: software, GPUs, data, disk, W&B, time. No torch here.

Each function asks one thing and answers with a `Check`; none raises for what it finds.
"""

from __future__ import annotations

import importlib.metadata
import itertools
import math
import os
import platform
import shutil
import socket
import subprocess
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import urlparse

from dcgan_dist.config import TrainConfig
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.errors import UserError
from dcgan_dist.run_folder import RunFolder
from dcgan_dist.tracking.weights_and_biases import choose_mode

Status = Literal["ok", "warn", "fail"]

PROBE_BYTES = 32 << 20
SLOW_WRITE_MIB_A_SECOND = 20
WANDB_HOST = "https://api.wandb.ai"
WANDB_TIMEOUT_SECONDS = 5.0


@dataclass(frozen=True)
class Check:
    """One question to one node, and the answer."""

    name: str
    status: Status
    found: str
    advice: str = ""
    node: str = ""


def node_name() -> str:
    """What the scheduler calls this node, or its host name."""
    return os.environ.get("SLURMD_NODENAME") or socket.gethostname()


def check_versions() -> Check:
    """The software that must be the same on every node."""
    packages = ("torch", "nvidia-dali-cuda130", "wandb")
    return Check("versions", "ok", ", ".join([f"Python {platform.python_version()}", *map(_version, packages)]))


def _version(package: str) -> str:
    try:
        return f"{package} {importlib.metadata.version(package)}"
    except importlib.metadata.PackageNotFoundError:
        return f"no {package}"


def check_gpus(ranks: int) -> Check:
    """The GPUs that nvidia-smi sees, for so many ranks on this node."""
    gpus = _nvidia_smi()
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    count = len(gpus) if visible is None else len([name for name in visible.split(",") if name])
    if not gpus or not count:
        how = "--gpus-per-node=N for sbatch" if "SLURM_JOB_ID" in os.environ else "nvidia-smi, CUDA_VISIBLE_DEVICES"
        return Check("GPUs", "warn", "none: ranks compute on the CPU", f"if there should be some: {how}")
    found = f"{count} x {gpus[0]}"
    if count < ranks:
        return Check("GPUs", "warn", f"{found} for {ranks} ranks", "ranks will share them; start one rank a GPU")
    return Check("GPUs", "ok", found)


def _nvidia_smi() -> list[str]:
    """Name and driver of each GPU of this node."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.replace(",", ", driver") for line in result.stdout.splitlines()] if result.returncode == 0 else []


def check_shards(config: TrainConfig) -> Check:
    """That the shard folder is there, complete by its sizes, and which data it holds."""
    folder = Path(config.data.shards)
    try:
        manifest = read_manifest(folder)
        MappedShards(folder, manifest)
    except UserError as error:
        return Check("shards", "fail", str(error), "every node must see the same shards under the same path")
    return Check("shards", "ok", f"{manifest.samples} images of {manifest.dataset}, {manifest.fingerprint[:12]}")


def check_run_folder(config: TrainConfig) -> list[Check]:
    """That the run folder can be written, how fast, and that the checkpoints will fit."""
    folder = RunFolder(config.run.folder)
    parent = next(path for path in (folder.path, *folder.path.absolute().parents) if path.exists())
    try:
        speed = write_speed(parent)
    except OSError as error:
        advice = "make room, or choose another --run.dir" if error.errno == 28 else "choose another --run.dir"
        return [Check("run folder", "fail", f"{parent}: cannot be written ({error.strerror})", advice)]
    found = f"{folder.path}: writes {speed:.0f} MiB/s"
    slow = speed < SLOW_WRITE_MIB_A_SECOND
    advice = "checkpoints are written in the background, but the last one must be done before the job is killed"
    return [
        Check("run folder", "warn" if slow else "ok", found, advice if slow else ""),
        check_disk(config, parent, shutil.disk_usage(parent).free + sum(_sizes(folder.checkpoints))),
    ]


def _sizes(folder: Path) -> list[int]:
    """Bytes of the checkpoints that newer ones will replace."""
    return [path.stat().st_size for path in folder.glob("*.pt")]


def write_speed(folder: Path) -> float:
    """MiB a second that reach the disk below `folder`. Raises OSError as the file system does."""
    probe = folder / f".preflight.{socket.gethostname()}.{os.getpid()}.tmp"
    begin = time.perf_counter()
    try:
        with probe.open("wb") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
    return PROBE_BYTES / 2**20 / (time.perf_counter() - begin)


def check_disk(config: TrainConfig, folder: Path, free: int) -> Check:
    """That the checkpoints the run will keep fit on the disk."""
    each, keep = checkpoint_bytes(config), config.checkpoint
    milestones = (config.train.total_images or 0) // keep.keep_every_images if keep.keep_every_images else 0
    needed = each * (keep.keep_last + 1 + milestones)  # one more while it is written
    found = f"{free / 2**30:.1f} GiB free, {needed / 2**30:.2f} for checkpoints"
    if free < needed:
        return Check("disk", "fail", f"{folder}: {found}", "make room, or choose another --run.dir")
    if free < 2 * needed + (1 << 30):
        return Check("disk", "warn", f"{folder}: {found}", "little is left for samples and figures")
    return Check("disk", "ok", found)


def checkpoint_bytes(config: TrainConfig) -> int:
    """Size of a checkpoint: both networks, the generator's average, and Adam's two moments of every weight."""
    base, doublings = config.model.base_channels, int(math.log2(config.data.image_size)) - 3
    channels = [base * 2**power for power in range(doublings + 1)]
    between = sum(16 * narrow * wide for narrow, wide in itertools.pairwise(channels))
    generator = 16 * config.model.latent_size * channels[-1] + between + 48 * base
    discriminator = 48 * base + between + 16 * channels[-1]
    copies_of_generator = 4 if config.ema.half_life_images else 3
    return (copies_of_generator * generator + 3 * discriminator) * (8 if config.train.precision == "fp64" else 4)


def check_wandb(config: TrainConfig) -> Check:
    """Whether W&B can be reached, where it is asked for."""
    mode = choose_mode(config.track.wandb)
    if mode != "online":
        return Check("W&B", "ok", {"off": "off", "offline": "offline: wandb sync sends it later"}[mode])
    server = urlparse(os.environ.get("WANDB_BASE_URL", WANDB_HOST))
    address = (server.hostname or "", server.port or (443 if server.scheme == "https" else 80))
    try:
        socket.create_connection(address, timeout=WANDB_TIMEOUT_SECONDS).close()
    except OSError as error:
        status: Status = "fail" if config.track.wandb == "online" else "warn"
        found = f"{server.hostname} cannot be reached ({error})"
        return Check("W&B", status, found, "--track.wandb offline, and sync it later")
    return Check("W&B", "ok", f"online at {server.hostname}")


def check_time_limit(config: TrainConfig, images: int | None, images_per_second: float | None) -> Check:
    """Whether the job's time limit leaves room for the run, if one is known and the speed was measured."""
    left = _seconds_left(config)
    limit = "no time limit is known" if left is None else f"{_in_words(left)} until the time limit"
    if images is None or not images_per_second:
        return Check("time", "ok", limit)
    needed = images / images_per_second
    found = f"about {_in_words(needed)} for {images} images at {images_per_second:.0f} a second; {limit}"
    if left is not None and needed > left:
        return Check("time", "warn", found, f"the job will be started about {math.ceil(needed / left)} times")
    return Check("time", "ok", found)


def _seconds_left(config: TrainConfig) -> float | None:
    limits = []
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        limits.append(float(end) - time.time())
    if config.run.time_limit_minutes is not None:
        limits.append(60 * config.run.time_limit_minutes)
    return min(limits) if limits else None


def _in_words(seconds: float) -> str:
    return str(timedelta(seconds=round(max(seconds, 0))))
