"""Runs the project's commands as a user would, and compares what they leave behind."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.run.retention import newest_first

ROOT = Path(__file__).resolve().parents[1]

# Networks and images so small that a step takes milliseconds.
SMALL = (
    *("--data.image_size", "32"),
    *("--data.decoder", "pillow"),
    *("--model.base_channels", "8"),
    *("--model.latent_size", "16"),
    *("--train.precision", "fp32"),
    *("--track.report", "false"),
    *("--track.tensorboard", "false"),
    *("--track.wandb", "off"),
)

Finished = subprocess.CompletedProcess[str]


def train_command(ranks: int, *arguments: object) -> list[str]:
    """The training command on `ranks` processes."""
    torchrun = ["torch.distributed.run", "--nproc_per_node", str(ranks)]
    torchrun += ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2", "-m"]
    return [sys.executable, "-m", *(torchrun if ranks > 1 else []), "dcgan_dist.train", *map(str, arguments)]


def run_train(ranks: int, *arguments: object, env: Mapping[str, str] | None = None, timeout: float = 120) -> Finished:
    """Trains to the end, or until `timeout` seconds have passed: then TimeoutExpired, and no process is left."""
    return run_command(train_command(ranks, *arguments), env=env, timeout=timeout)


def run_module(module: str, *arguments: object, timeout: float = 120) -> Finished:
    """Runs `python -m module`."""
    return run_command([sys.executable, "-m", module, *map(str, arguments)], timeout=timeout)


def run_command(command: list[str], env: Mapping[str, str] | None = None, timeout: float = 120) -> Finished:
    """Runs a command from the checkout's root to its end."""
    with started(command, env) as process:
        output, errors = process.communicate(timeout=timeout)
    return subprocess.CompletedProcess(command, process.returncode, output, errors)


@contextlib.contextmanager
def started(command: list[str], env: Mapping[str, str] | None = None) -> Iterator[subprocess.Popen[str]]:
    """Starts a command in a session of its own; when the block ends, nothing that it started is left."""
    process = subprocess.Popen(
        command,
        cwd=ROOT,
        env=_environment(env or {}),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield process
    finally:
        kill_tree(process)
        for pipe in (process.stdin, process.stdout, process.stderr):
            assert pipe
            pipe.close()


def kill_tree(process: subprocess.Popen[str]) -> None:
    """Ends a command and all it started, at once. torchrun's ranks have sessions of their own: groups do not do."""
    for pid in reversed(_with_descendants(process.pid)) if process.poll() is None else ():
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    process.wait()


def wait_until(condition: Callable[[], bool], process: subprocess.Popen[str], timeout: float = 90) -> None:
    """Waits for something that a running command brings about."""
    end = time.monotonic() + timeout
    while not condition():
        assert process.poll() is None, f"ended with {process.returncode} too early: {process.communicate()}"
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.02)


def user_errors(result: Finished) -> list[str]:
    """The lines with which a command tells its user what is wrong."""
    return [line for line in (result.stdout + result.stderr).splitlines() if line.startswith("error:")]


def metric_rows(run: Path) -> list[dict[str, float]]:
    """The rows of a run's metrics.jsonl; none before it is written."""
    path = run / "metrics.jsonl"
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def read_status(run: Path) -> dict[str, Any]:
    """A run's status.json."""
    return json.loads((run / "status.json").read_text())


def checkpoints(run: Path) -> list[Path]:
    """The checkpoints of a run folder, oldest first."""
    return newest_first(run / "checkpoints")[::-1]


def load_checkpoint(path: Path) -> dict[str, Any]:
    """A checkpoint, loaded as a careful user would."""
    return torch.load(path, map_location="cpu", weights_only=True)


def assert_same_tensors(left: Any, right: Any, path: str = "checkpoint") -> None:
    """Two checkpoints are equal to the last bit in everything but where their run folders lie."""
    assert type(left) is type(right), path
    if isinstance(left, dict):
        assert list(left) == list(right), path
        for key in left:
            if f"{path}.{key}" != "checkpoint.config.run":
                assert_same_tensors(left[key], right[key], f"{path}.{key}")
    elif isinstance(left, (list, tuple)):
        assert len(left) == len(right), path
        for index, (one, other) in enumerate(zip(left, right, strict=True)):
            assert_same_tensors(one, other, f"{path}.{index}")
    elif isinstance(left, Tensor):
        assert left.dtype == right.dtype, path
        difference = (left.double() - right.double()).abs().max().item() if left.shape == right.shape else "shape"
        assert torch.equal(left, right), f"{path} differs: {difference}"
    else:
        assert left == right, path


def _environment(changes: Mapping[str, str]) -> dict[str, str]:
    """This process's environment without what would make a test depend on the machine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("WANDB_", "TORCHELASTIC_"))}
    return kept | {"CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1", **changes}


def _with_descendants(pid: int) -> list[int]:
    """`pid` and all below it, parents first."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            after_name = stat.read_text().rpartition(")")[2].split()
            children.setdefault(int(after_name[1]), []).append(int(stat.parent.name))
    found = [pid]
    for parent in found:
        found += children.get(parent, [])
    return found


# --- processes that a test did not start itself -----------------------------------------------------------------------


def rank_processes(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Process ids of the ranks that a running torchrun has started, by rank."""
    found = {}
    for pid in _with_descendants(launcher.pid)[1:]:
        with contextlib.suppress(OSError):
            variables = (Path("/proc") / str(pid) / "environ").read_bytes().split(b"\0")
            rank = next((text[5:] for text in variables if text.startswith(b"RANK=")), None)
            if rank is not None:
                found.setdefault(int(rank), pid)
    return found


def processes_naming(text: object) -> list[int]:
    """Living processes with `text`, such as a test's own folder, in their command line, whoever their parent is."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            alive = (folder / "stat").read_text().rpartition(")")[2].split()[0] != "Z"
            if alive and str(text).encode() in (folder / "cmdline").read_bytes() and folder.name != str(os.getpid()):
                found.append(int(folder.name))
    return found


def free_port() -> int:
    """A port of this host that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("", 0))
        return probe.getsockname()[1]
