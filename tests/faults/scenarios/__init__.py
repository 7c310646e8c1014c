"""One function a fault: it disturbs a run, insists on what must hold, and returns what it measured."""

from __future__ import annotations

import signal
from collections.abc import Callable
from functools import partial
from pathlib import Path

from tests.faults.lab import Lab, Outcome, standalone, static
from tests.faults.scenarios.data import change_manifest, change_shard
from tests.faults.scenarios.deaths import kill_launcher, kill_node, kill_rank
from tests.faults.scenarios.disk import (
    damage_all_checkpoints,
    damage_checkpoint,
    die_while_saving,
    empty,
    fill_disk,
    flip_bit,
    limit_file_size,
    move_run,
    slow_down_disk,
    truncate,
)
from tests.faults.scenarios.hangs import diverge, pause_rank, raise_in_rank, stick_rank
from tests.faults.scenarios.stops import stop_by_file, stop_by_signal, stop_by_time_limit, stop_twice
from tests.faults.scenarios.world_size import change_world_size

Scenario = Callable[[Lab], Outcome]

SCENARIOS: dict[str, Scenario] = {
    "kill -9 of rank 0, standalone": partial(kill_rank, rank=0, launcher=standalone),
    "kill -9 of rank 1, standalone": partial(kill_rank, rank=1, launcher=standalone),
    "kill -9 of rank 0, static": partial(kill_rank, rank=0, launcher=static),
    "kill -9 of rank 1, static": partial(kill_rank, rank=1, launcher=static),
    "kill -9 of torchrun, standalone": partial(kill_launcher, launcher=standalone),
    "kill -9 of torchrun, static": partial(kill_launcher, launcher=static),
    "loss of one of two nodes": kill_node,
    "SIGSTOP of rank 0": partial(pause_rank, rank=0),
    "SIGSTOP of rank 1": partial(pause_rank, rank=1),
    "rank 0 stuck in Python": partial(stick_rank, rank=0),
    "rank 1 stuck in Python": partial(stick_rank, rank=1),
    "rank 0 raises": partial(raise_in_rank, rank=0),
    "rank 1 raises": partial(raise_in_rank, rank=1),
    "SIGTERM to torchrun": partial(stop_by_signal, number=signal.SIGTERM, target="torchrun"),
    "SIGUSR2 to torchrun": partial(stop_by_signal, number=signal.SIGUSR2, target="torchrun"),
    "SIGTERM to a rank": partial(stop_by_signal, number=signal.SIGTERM, target="a rank"),
    "SIGUSR2 to a rank": partial(stop_by_signal, number=signal.SIGUSR2, target="a rank"),
    "SIGTERM to all processes": partial(stop_by_signal, number=signal.SIGTERM, target="all"),
    "SIGUSR2 to all processes": partial(stop_by_signal, number=signal.SIGUSR2, target="all"),
    "SIGTERM twice to torchrun": partial(stop_twice, target="torchrun"),
    "SIGTERM twice to a stuck rank": partial(stop_twice, target="a rank"),
    "STOP file": stop_by_file,
    "time limit": stop_by_time_limit,
    "NaN in a gradient of one rank": partial(diverge, fault="nan"),
    "weights differ between ranks": partial(diverge, fault="drift"),
    "checkpoint truncated": partial(damage_checkpoint, damage=truncate),
    "checkpoint bit-flipped": partial(damage_checkpoint, damage=flip_bit),
    "checkpoint emptied": partial(damage_checkpoint, damage=empty),
    "checkpoint deleted": partial(damage_checkpoint, damage=Path.unlink),
    "all checkpoints damaged": damage_all_checkpoints,
    "kill -9 in the write of a checkpoint": partial(die_while_saving, fault="kill-in-write"),
    "kill -9 before its rename": partial(die_while_saving, fault="kill-before-rename"),
    "files cannot grow for a while": limit_file_size,
    "disk full": fill_disk,
    "slow disk": slow_down_disk,
    "run folder moved": move_run,
    "other images in the shard folder": change_manifest,
    "a byte of a shard changed": change_shard,
    "4, 2, 1, 3 ranks in turn": change_world_size,
}
