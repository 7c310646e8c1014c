"""Processes and nodes that die."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.lab import (
    CHECKPOINT_EVERY,
    GLOBAL_BATCH,
    STEPS,
    Lab,
    Launcher,
    Moment,
    Outcome,
    assert_nobody_left,
    disturbed,
    images_redone,
    note,
    wait_for_recovery,
)
from tests.running import free_port, rank_processes


def kill_rank(lab: Lab, rank: int, launcher: Launcher) -> Outcome:
    """kill -9 of one rank: torchrun starts all of them again and the run ends as if nothing had happened."""
    folder = lab.new_run()
    with disturbed(lab.command(folder, launcher=launcher, max_restarts=3), folder) as process:
        lab.wait_for_random_moment(folder, process)
        os.kill(rank_processes(process)[rank], signal.SIGKILL)
        moment = note(folder)
        seconds = wait_for_recovery(folder, moment, process)
        output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output[-3000:]
    return _recovered(lab, folder, moment, output, seconds)


def kill_launcher(lab: Lab, launcher: Launcher) -> Outcome:
    """kill -9 of torchrun: its ranks end with it, and the same command started again goes on."""
    folder = lab.new_run()
    with disturbed(lab.command(folder, launcher=launcher, max_restarts=3), folder) as process:
        lab.wait_for_random_moment(folder, process)
        process.kill()
        moment = note(folder)
        process.wait()
        assert_nobody_left(folder, within=2)
    with disturbed(lab.command(folder, launcher=launcher, max_restarts=3), folder) as process:
        seconds = wait_for_recovery(folder, moment, process)
        output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output[-3000:]
    return _recovered(lab, folder, moment, output, seconds)


def kill_node(lab: Lab) -> Outcome:
    """Two nodes, each with a torchrun and a rank: one is lost with all its processes and comes back."""
    folder, port = lab.new_run(), free_port()
    with _node(lab, folder, port) as first, _node(lab, folder, port) as second:
        lab.wait_for_images(folder, first, lab.chance.randrange(1, STEPS - 10) * GLOBAL_BATCH)
        second.kill()
        moment = note(folder)
        second.wait()
        with _node(lab, folder, port) as again:
            seconds = wait_for_recovery(folder, moment, first)
            output = "".join(first.communicate(timeout=120))
            output += "".join(again.communicate(timeout=60))
    assert first.returncode == 0, output[-3000:]
    assert_nobody_left(folder)
    return _recovered(lab, folder, moment, output, seconds)


@contextmanager
def _node(lab: Lab, folder: Path, port: int) -> Iterator[subprocess.Popen[str]]:
    """One of two nodes on this host; the first to start serves the rendezvous."""
    options = ["--nnodes", "2", "--max-restarts", "3", "--rdzv-backend", "c10d", "--rdzv-id", folder.name]
    options += ["--rdzv-endpoint", f"127.0.0.1:{port}", "--local-addr", "127.0.0.1"]
    options += ["--rdzv-conf", "keep_alive_interval=1,keep_alive_max_attempt=3,last_call_timeout=1"]
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    with disturbed(lab.training(folder, ranks=1, options=options), folder) as process:
        time.sleep(1)  # the first one's port is open by then
        yield process


def _recovered(lab: Lab, folder: Path, moment: Moment, output: str, seconds: float | None) -> Outcome:
    """What a run that was killed and has finished since has to show."""
    redone = images_redone(moment, output)
    # A checkpoint may be half-written when the process dies: then the one before it counts.
    assert redone <= 2 * CHECKPOINT_EVERY, f"{redone} images were redone"
    detail = f"killed at {moment.images_seen} images"
    return Outcome(seconds, redone, lab.compare(folder), detail)
