"""What a node can be asked before a run without starting a rank: software, cores, GPUs, data, W&B, time. No torch.

Each function asks one thing and answers with a `Check`; none raises for what it finds.
"""

from __future__ import annotations

import errno
import importlib.metadata
import itertools
import math
import os
import platform
import socket
import subprocess
import sys
import time
import urllib.request
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Literal
from urllib.parse import SplitResult, urlsplit

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import is_url
from dcgan_dist.config import DataConfig, RunConfig, TrackConfig
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.tracking.weights_and_biases import choose_mode, service_address

Status = Literal["ok", "warn", "fail"]

NO_GPU = ("", "-1", "NoDevFiles")  # in CUDA_VISIBLE_DEVICES
TORCH_TIMEOUT_SECONDS = 120
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


def check_cpus(ranks: int) -> Check:
    """The cores that so many ranks of this node share."""
    cores = len(os.sched_getaffinity(0))
    if cores < ranks:
        how = "--cpus-per-task=N for sbatch" if "SLURM_JOB_ID" in os.environ else "taskset, or fewer ranks"
        return Check("CPUs", "warn", f"{cores} for {ranks} ranks", f"each rank decodes and launches kernels: {how}")
    return Check("CPUs", "ok", str(cores))


def check_gpus(ranks: int) -> Check:
    """The GPUs of this node, for so many ranks, and whether torch can use them."""
    gpus, given = _nvidia_smi(), int(os.environ.get("SLURM_GPUS_ON_NODE") or 0)
    count = min(len(gpus), _most_visible_gpus())
    if not count and not given:
        how = "--gpus-per-node=N for sbatch" if "SLURM_JOB_ID" in os.environ else "nvidia-smi, CUDA_VISIBLE_DEVICES"
        return Check("GPUs", "warn", "none: ranks compute on the CPU", f"if there should be some: {how}")
    found = f"{count} x {gpus[0]}" if count else f"{given} from SLURM"
    if problem := why_torch_cannot_use_gpus():
        return Check(
            "GPUs", "fail", f"{found}, but torch cannot use them: {problem}", "the driver, torch's build, cgroups"
        )
    if (count or given) < ranks:
        return Check("GPUs", "warn", f"{found} for {ranks} ranks", "ranks will share them; start one rank a GPU")
    return Check("GPUs", "ok", found)


def _most_visible_gpus() -> float:
    """How many GPUs CUDA_VISIBLE_DEVICES lets through; CUDA stops at the first name that is none."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is None:
        return math.inf
    return len(list(itertools.takewhile(lambda name: name not in NO_GPU, visible.split(","))))


def why_torch_cannot_use_gpus() -> str | None:
    """The reason, asked of another process: a CUDA context here would take memory from the ranks."""
    program = [sys.executable, "-c", "import torch; torch.cuda.init(); assert torch.cuda.device_count(), 'none found'"]
    try:
        result = subprocess.run(program, capture_output=True, text=True, check=False, timeout=TORCH_TIMEOUT_SECONDS)
    except subprocess.TimeoutExpired:
        return f"no answer within {TORCH_TIMEOUT_SECONDS} seconds"
    return result.stderr.strip().rpartition("\n")[2] if result.returncode else None


def _nvidia_smi() -> list[str]:
    """Name and driver of each GPU of this node."""
    query = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    try:
        result = subprocess.run(query, capture_output=True, text=True, check=False, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return [line.replace(",", ", driver") for line in result.stdout.splitlines()] if result.returncode == 0 else []


def check_shards(data: DataConfig) -> Check:
    """That the shard folder is there, complete by its sizes, and which data it holds."""
    folder = data.shards
    try:
        manifest = read_manifest(folder)
        if not is_url(folder):
            MappedShards(Path(folder), manifest)
    except UserError as error:
        return Check("shards", "fail", str(error), "every node must see the same shards under the same path")
    except OSError as error:
        advice = "raise `ulimit -n`" if error.errno == errno.EMFILE else ""
        return Check("shards", "fail", f"{error.filename or folder}: {error.strerror}", advice)
    return Check("shards", "ok", f"{manifest.samples} images of {manifest.dataset}, {manifest.fingerprint[:12]}")


def check_wandb(track: TrackConfig) -> Check:
    """Whether W&B can be reached, where it is asked for."""
    mode = choose_mode(track.wandb)
    if mode != "online":
        return Check("W&B", "ok", {"off": "off", "offline": "offline: wandb sync sends it later"}[mode])
    server = service_address()
    way = _proxy_to(server) or server
    try:
        socket.create_connection((way.hostname or "", _port(way)), timeout=WANDB_TIMEOUT_SECONDS).close()
    except OSError as error:
        status: Status = "fail" if track.wandb == "online" else "warn"
        found = f"{way.netloc.rpartition('@')[2]} cannot be reached ({error})"
        return Check("W&B", status, found, "--track.wandb offline, and sync it later")
    return Check("W&B", "ok", f"online at {server.hostname}" + ("" if way is server else f" through {way.hostname}"))


def _proxy_to(server: SplitResult) -> SplitResult | None:
    """The proxy that the environment names for a server, if it does."""
    proxy = urllib.request.getproxies().get(server.scheme)
    if not proxy or urllib.request.proxy_bypass(server.hostname or ""):
        return None
    return urlsplit(proxy if "://" in proxy else f"http://{proxy}")


def _port(server: SplitResult) -> int:
    return server.port or (443 if server.scheme == "https" else 80)


def check_time_limit(run: RunConfig, images: int | None, images_per_second: float | None) -> Check:
    """Whether the job's time limit leaves room for the run, if one is known and the speed was measured."""
    left = _seconds_left(run)
    limit = "no time limit is known" if left is None else f"{_in_words(left)} until the time limit"
    if images is None or not images_per_second:
        return Check("time", "ok", limit)
    needed = images / images_per_second
    found = f"about {_in_words(needed)} for {images} images at {images_per_second:.0f} a second; {limit}"
    if left is not None and needed > left:
        return Check("time", "warn", found, f"the job will be started about {math.ceil(needed / left)} times")
    return Check("time", "ok", found)


def _seconds_left(run: RunConfig) -> float | None:
    limits = []
    if end := os.environ.get("SLURM_JOB_END_TIME"):
        limits.append(float(end) - time.time())
    if run.time_limit_minutes is not None:
        limits.append(60 * run.time_limit_minutes)
    return min(limits) if limits else None


def _in_words(seconds: float) -> str:
    return str(timedelta(seconds=round(max(seconds, 0))))
