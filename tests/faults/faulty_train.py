"""The training command with one fault in it, for torchrun to start in place of `-m dcgan_dist.train`.

    FAULT=raise:rank=1:step=5 torchrun --nproc_per_node 2 -m tests.faults.faulty_train --run.dir ...

The product has no hooks for faults: its functions are wrapped here, from outside, before it starts. A fault strikes one
rank, once, and only in the first life of the job: after a restart by torchrun the same command is sound.
"""

from __future__ import annotations

import os
import resource
import runpy
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import IO, Any, NoReturn

import torch
from torch import Tensor

from dcgan_dist.gan.step import Batch, GanStep
from tests.faults import wrong_batch_norm

SMALLEST_CHECKPOINT_BYTES = 100_000
"""Below the size of every checkpoint of the suite, above that of every other file."""


@dataclass(frozen=True)
class Fault:
    """What goes wrong: `kind:rank=R:step=S`, with `until` and `seconds` where the kind knows them."""

    kind: str
    rank: int = 0
    step: int = 1
    """Counted in this process from 1: the training step, or for faults of writing the checkpoint."""
    until: int = 0
    """The step at which a lasting fault is over."""
    seconds: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Fault:
        """Reads the environment variable."""
        kind, *settings = text.split(":")
        given = dict(setting.split("=") for setting in settings)
        return cls(
            kind,
            int(given.get("rank", 0)),
            int(given.get("step", 1)),
            int(given.get("until", 0)),
            float(given.get("seconds", 0)),
        )


class InjectedError(Exception):
    """What a rank raises that has a bug."""


def install(fault: Fault) -> None:
    """Wraps what the fault needs. Raises KeyError for a kind that there is not."""
    kinds: dict[str, Callable[[Fault], None]] = {
        "kill": lambda fault: _in_step(fault, lambda step: _die()),
        "raise": lambda fault: _in_step(fault, lambda step: _raise()),
        "stuck": lambda fault: _in_step(fault, lambda step: _sleep_for_ever()),
        "nan": lambda fault: _in_step(fault, _poison_gradient),
        "drift": lambda fault: _in_step(fault, _change_weight),
        "batch-norm": lambda fault: wrong_batch_norm.install(),
        "disk-full": _fill_disk,
        "slow-disk": _slow_down_disk,
        "kill-in-write": _die_in_write,
        "kill-before-rename": _die_before_rename,
    }
    kinds[fault.kind](fault)


# --- faults of a step -------------------------------------------------------------------------------------------------


def _in_step(fault: Fault, strike: Callable[[GanStep], None]) -> None:
    """Calls `strike` at the start of the chosen step."""
    real, calls = GanStep.__call__, 0

    @wraps(real)
    def call(step: GanStep, batch: Batch) -> Any:
        nonlocal calls
        calls += 1
        if calls == fault.step:
            strike(step)
        return real(step, batch)

    GanStep.__call__ = call  # type: ignore[method-assign]


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def _raise() -> NoReturn:
    raise InjectedError("this rank has a bug")


def _sleep_for_ever() -> NoReturn:
    while True:
        time.sleep(0.1)


def _poison_gradient(step: GanStep) -> None:
    """Turns one gradient of this rank into NaN before the ranks' gradients are averaged, in this step alone."""

    def poison(gradient: Tensor) -> Tensor:
        handle.remove()
        return gradient * torch.nan

    handle = step.discriminator.leaves[0].register_hook(poison)


def _change_weight(step: GanStep) -> None:
    """Changes the lowest bit of one weight of this rank, as a fault of the memory would."""
    weights = next(step.generator.network.parameters()).data
    weights[(0,) * weights.dim()] *= 1 + 2**-23


# --- faults of the disk -----------------------------------------------------------------------------------------------


def _fill_disk(fault: Fault) -> None:
    """No file may grow to the size of a checkpoint, from step `step` to step `until`."""
    real, calls = GanStep.__call__, 0
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)

    @wraps(real)
    def call(step: GanStep, batch: Batch) -> Any:
        nonlocal calls
        calls += 1
        full = fault.step <= calls < fault.until
        resource.setrlimit(resource.RLIMIT_FSIZE, (SMALLEST_CHECKPOINT_BYTES if full else hard, hard))
        return real(step, batch)

    GanStep.__call__ = call  # type: ignore[method-assign]


def _slow_down_disk(fault: Fault) -> None:
    """Every file that a background thread writes takes `seconds` longer to reach the disk."""
    real = os.fsync

    @wraps(real)
    def fsync(handle: int) -> None:
        if threading.current_thread() is not threading.main_thread():
            time.sleep(fault.seconds)
        real(handle)

    os.fsync = fsync


def _die_in_write(fault: Fault) -> None:
    """Ends the process when half of the chosen checkpoint is written."""
    real, calls = torch.save, 0

    @wraps(real)
    def save(contents: object, file: IO[bytes]) -> None:
        nonlocal calls
        calls += 1
        real(contents, file)
        if calls == fault.step:
            file.flush()
            file.truncate(file.tell() // 2)
            _die()

    torch.save = save  # type: ignore[assignment]


def _die_before_rename(fault: Fault) -> None:
    """Ends the process when the chosen checkpoint is on the disk and does not have its name yet."""
    real, calls = Path.replace, 0

    @wraps(real)
    def replace(path: Path, target: Path) -> Path:
        nonlocal calls
        if Path(target).suffix == ".pt":
            calls += 1
            if calls == fault.step:
                _die()
        return real(path, target)

    Path.replace = replace  # type: ignore[method-assign]


if __name__ == "__main__":
    wanted = Fault.parse(os.environ.get("FAULT", ""))
    first_life = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0"
    if wanted.kind and first_life and int(os.environ.get("RANK", "0")) == wanted.rank:
        install(wanted)
    runpy.run_module("dcgan_dist.train", run_name="__main__", alter_sys=True)
