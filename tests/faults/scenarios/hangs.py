"""Processes that hang or fail."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.faults.lab import GLOBAL_BATCH, STEPS, Lab, Outcome, assert_nobody_left, disturbed, note, wait_for_recovery
from tests.faults.scenarios.deaths import _recovered
from tests.running import checkpoints, load_checkpoint, rank_processes, read_status

HANG_TIMEOUT = ("--run.hang_timeout_seconds", 4)


def pause_rank(lab: Lab, rank: int) -> Outcome:
    """SIGSTOP of a rank: the others notice, name it, and torchrun starts all again."""
    folder = lab.new_run()
    command = lab.command(folder, *HANG_TIMEOUT, max_restarts=1)
    with disturbed(command, folder) as process:
        lab.wait_for_images(folder, process, lab.chance.randrange(1, STEPS - 10) * GLOBAL_BATCH)
        os.kill(rank_processes(process)[rank], signal.SIGSTOP)
        moment = note(folder)
        seconds = wait_for_recovery(folder, moment, process)
        output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output[-3000:]
    assert f"rank {rank} on " in _line_with(output, "gave no sign of life"), _errors_in(output)
    return _recovered(lab, folder, moment, output, seconds)


def stick_rank(lab: Lab, rank: int) -> Outcome:
    """A rank that never leaves its own Python code: it shows where it is stuck and ends; torchrun starts all again."""
    folder, step = lab.new_run(), lab.chance.randrange(2, STEPS - 10)
    command = lab.command(folder, *HANG_TIMEOUT, max_restarts=1, faulty=True)
    with disturbed(command, folder, f"stuck:rank={rank}:step={step}") as process:
        lab.wait_for_images(folder, process, (step - 1) * GLOBAL_BATCH)
        moment = note(folder)
        seconds = wait_for_recovery(folder, moment, process)
        output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output[-3000:]
    assert f"rank {rank} on " in _line_with(output, "is stuck in its own code"), output[-3000:]
    assert "_sleep_for_ever" in output, "the stack does not show where the rank is stuck"
    return _recovered(lab, folder, moment, output, seconds)


def raise_in_rank(lab: Lab, rank: int) -> Outcome:
    """A rank that raises: the job ends, its last lines name the rank, and it can be started again."""
    folder, step = lab.new_run(), lab.chance.randrange(2, STEPS)
    with disturbed(lab.command(folder, faulty=True), folder, f"raise:rank={rank}:step={step}") as process:
        lab.wait_for_images(folder, process, (step - 1) * GLOBAL_BATCH)
        moment = note(folder)
        output = "".join(process.communicate(timeout=60))
        seconds = time.monotonic() - moment.seconds
    assert_nobody_left(folder)
    assert process.returncode == 1, output[-3000:]
    assert "InjectedError: this rank has a bug" in output
    assert f"(local_rank: {rank})" in _line_with(output.partition("Root Cause")[2], "rank "), output[-3000:]
    _assert_failed(folder)
    again = lab.finish(folder)
    return _recovered(lab, folder, moment, again.stderr, seconds)


def diverge(lab: Lab, fault: str) -> Outcome:
    """NaN in one rank's gradient, or weights that differ between ranks: all stop, and the checkpoints stay sound."""
    folder, step = lab.new_run(), lab.chance.randrange(15, STEPS)
    seldom = ("--track.every_images", 5 * GLOBAL_BATCH)
    with disturbed(lab.command(folder, *seldom, faulty=True), folder, f"{fault}:rank=1:step={step}") as process:
        output = "".join(process.communicate(timeout=120))
    assert_nobody_left(folder)
    assert process.returncode == 1, output[-3000:]
    line = _line_with(output, "error: ")
    assert ("differ between ranks" if fault == "drift" else "a gradient is not finite") in line, output[-3000:]
    _assert_failed(folder)
    newest = load_checkpoint(checkpoints(folder)[-1])
    assert newest["images_seen"] < step * GLOBAL_BATCH, "a checkpoint was written after the fault"
    assert all(weights.isfinite().all() for weights in (*newest["generator"].values(), *newest["ema"].values()))
    lab.finish(folder)
    detail = f"in step {step}, the last checkpoint has {newest['images_seen']} images"
    return Outcome(identical=lab.compare(folder, every_row=False), detail=detail)


def _assert_failed(folder: Path) -> None:
    status = read_status(folder)
    assert status["status"] == "failed", status
    assert status["reason"], status


def _errors_in(output: str) -> str:
    """The lines that tell of errors."""
    return "\n".join(line for line in output.splitlines() if "error:" in line or "lost another" in line)


def _line_with(output: str, text: str) -> str:
    return next((line for line in output.splitlines() if text in line), "")
