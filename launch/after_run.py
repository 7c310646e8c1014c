"""Decides what becomes of a job whose ranks have ended, and says why in one line.

python -m launch.after_run ATTEMPT --srun-status N --requeues N --max-requeues N

ATTEMPT is a folder with before.json, written by launch.before_run, and log, all that the ranks wrote. Exit status 0:
the run is done, or was stopped for good; 75: start the job again; 1: it failed.
"""

from __future__ import annotations

import argparse
import json
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcgan_dist.errors import exit_cleanly
from dcgan_dist.run_folder import RunFolder
from launch.before_run import read_status

DONE, FAILED, START_AGAIN = 0, 1, 75  # 75 is EX_TEMPFAIL of sysexits.h
STOPPED_BY = "launch.torchrun: stopped by "  # what launch.torchrun says after a signal
LOST_A_NODE = "launch.torchrun: another node is gone: "  # and when it is left alone
ERROR = "error: "  # how every command of this project begins to tell of one
STOP_FILE = "the STOP file"  # the reason in status.json
HOPELESS = ("RunFailed", "UserError")  # beginnings of reasons that another start would meet again
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@dataclass(frozen=True)
class Attempt:
    """What is known of the ranks' last start."""

    before: dict[str, Any]
    """status.json as it was before the start: it may tell of an attempt long ago."""

    after: dict[str, Any]
    """status.json now."""

    srun_status: int
    """0 also after a request to stop, or a mistake of the user's."""

    stopped_by: str | None
    """What ended torchrun, if it was a signal or the loss of another node."""

    error: str | None
    """The last line of the log that tells of an error."""

    @property
    def status(self) -> str | None:
        """The status that this attempt wrote, if it came so far."""
        return self.after.get("status") if self.after.get("updated") != self.before.get("updated") else None

    @property
    def was_done_already(self) -> bool:
        """Nothing was left to do, and nothing else went wrong."""
        return self.after.get("status") == "done" and self.srun_status == 0 and not self.error and not self.stopped_by


def decide(attempt: Attempt) -> tuple[int, str]:
    """The exit status, and why."""
    reason, at = attempt.after.get("reason", ""), f"at {attempt.after.get('images_seen', 0)} images"
    if attempt.status == "done" or attempt.was_done_already:
        return DONE, f"done {at}"
    if attempt.status == "preempted":
        for_good = reason == STOP_FILE
        return (DONE if for_good else START_AGAIN), f"stopped by {reason} {at}"
    if attempt.stopped_by and not (attempt.status == "failed" and reason.startswith(HOPELESS)):
        # Too early for the ranks to agree on a checkpoint; one that lost another over it may have called it a failure.
        return START_AGAIN, f"stopped by {attempt.stopped_by}" + (f" {at}" if attempt.status else " before it began")
    if attempt.status == "failed":
        return FAILED, reason
    if attempt.error:
        return FAILED, attempt.error
    if attempt.status == "running":
        return START_AGAIN, f"all ranks were killed {at}"
    return FAILED, "the ranks ended before the run began; the log above says why"


def read_attempt(folder: Path, srun_status: int) -> tuple[Path, Attempt]:
    """The run folder, and what happened since before.json was written."""
    note = json.loads((folder / "before.json").read_text())
    run = RunFolder(Path(note["folder"]))
    log = (folder / "log").read_text(errors="replace").splitlines()
    errors = [line.removeprefix(ERROR) for line in log if line.startswith(ERROR)]
    attempt = Attempt(note["status"], read_status(run), srun_status, None, errors[-1] if errors else None)
    return run.path, replace(attempt, stopped_by=_interruption(log, attempt))


def _interruption(log: list[str], attempt: Attempt) -> str | None:
    """A signal, or the loss of another node; before the run began, nodes that do not meet are a failure."""
    for line in log:
        if line.startswith(STOPPED_BY):
            return line.removeprefix(STOPPED_BY)
        if line.startswith(LOST_A_NODE) and attempt.status:
            return "the loss of another node"
    return _signal_in(attempt.srun_status)


def _signal_in(srun_status: int) -> str | None:
    """The signal that ended torchrun before it could handle one: a shell adds 128 to its number."""
    return next((number.name for number in SIGNALS if srun_status == 128 + number), None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.after_run", description=__doc__)
    parser.add_argument("attempt", type=Path, help="folder with before.json and log")
    parser.add_argument("--srun-status", type=int, required=True, help="exit status of srun")
    parser.add_argument("--requeues", type=int, required=True, help="how often the job was queued again already")
    parser.add_argument("--max-requeues", type=int, required=True, help="how often it may be")
    return parser.parse_args()


def main() -> int:
    """Prints the decision; the exit status."""
    arguments = _arguments()
    folder, attempt = read_attempt(arguments.attempt, arguments.srun_status)
    status, why = decide(attempt)
    if status == START_AGAIN and arguments.requeues >= arguments.max_requeues:
        status, why = FAILED, f"{why}; queued again {arguments.requeues} times already: sbatch it again to go on"
    if status == START_AGAIN:
        why += f"; queued again ({arguments.requeues + 1} of {arguments.max_requeues})"
    print(f"{'error: ' if status == FAILED else ''}{folder}: {why}", flush=True)
    return status


if __name__ == "__main__":
    exit_cleanly(main)
