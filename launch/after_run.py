"""Decides what becomes of a job whose ranks have ended, and says why in one line.

python -m launch.after_run ATTEMPT --job N --srun-status N --max-requeues N

ATTEMPT is a folder with before.json, written by launch.before_run, and log, all that the ranks wrote. Exit status 0:
the run is done, or was stopped for good; 75: start the job again; 1: it failed.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.base.files import write_text
from dcgan_dist.run.folder import RunFolder
from launch.before_run import newest_checkpoint, read_status

DONE, FAILED, START_AGAIN = 0, 1, 75  # 75 is EX_TEMPFAIL of sysexits.h
STOPPED_BY = "launch.torchrun: stopped by "  # what launch.torchrun says after a signal
LOST_A_NODE = "launch.torchrun: another node is gone: "  # when it is left alone
GAVE_UP = "launch.torchrun: gave up: "  # and when its ranks failed too often, or it failed itself
ERROR = "error: "  # how every command of this project begins to tell of one
STOP_FILE = "the STOP file"  # the reason in status.json
HOPELESS = ("RunFailed", "UserError")  # beginnings of reasons that another start would meet again
SIGNALS = (signal.SIGTERM, signal.SIGUSR2, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)
KILLED_IN_VAIN = 1  # ranks that were killed without a word may meet the same end again: one more start


@dataclass(frozen=True)
class Attempt:
    """What is known of the ranks' last start."""

    before: dict[str, Any]
    """status.json as it was before the start: it may tell of an attempt long ago."""

    after: dict[str, Any]
    """status.json now."""

    srun_status: int
    """0 also after a request to stop."""

    came_further: bool
    """Whether it left a newer checkpoint than it found."""

    stopped_by: str | None
    """What ended torchrun, if it was a signal or the loss of another node."""

    gave_up: str | None
    """What the first torchrun that gave up said about it."""

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

    @property
    def was_killed(self) -> bool:
        """Whether nobody knows what ended the ranks, not even they."""
        return self.status == "running" and not self.stopped_by


def decide(attempt: Attempt) -> tuple[int, str]:
    """The exit status, and why."""
    reason, at = attempt.after.get("reason", ""), f"at {attempt.after.get('images_seen', 0)} images"
    if attempt.status == "done" or attempt.was_done_already:
        return DONE, f"done {at}" + _warnings(attempt.after)
    if attempt.status == "preempted":
        for_good = reason == STOP_FILE
        return (DONE if for_good else START_AGAIN), f"stopped by {reason} {at}"
    if attempt.stopped_by and not (attempt.status == "failed" and reason.startswith(HOPELESS)):
        # Too early for the ranks to agree on a checkpoint; one that lost another over it may have called it a failure.
        return START_AGAIN, f"stopped by {attempt.stopped_by}" + (f" {at}" if attempt.status else " before it began")
    if attempt.status == "failed":
        return FAILED, f"{reason} ({attempt.gave_up})" if attempt.gave_up else reason  # rank 0 knows only its own end
    if attempt.error:
        return FAILED, attempt.error
    if attempt.was_killed:
        return START_AGAIN, f"all ranks were killed {at}"
    return FAILED, f"the ranks ended before the run began ({attempt.gave_up or 'see the log above'})"


def _warnings(status: dict[str, Any]) -> str:
    """The signs of collapse that lasted to the end, from a status.json; "" if there are none."""
    kinds = status.get("warnings") or []
    return f", with signs of collapse: {', '.join(map(str, kinds))}" if kinds else ""


def bound(run: RunFolder, job: str, attempt: Attempt, max_requeues: int) -> tuple[int, str]:
    """The exit status of a job that wants to start again, and why: it may not for ever without coming further.

    Raises UserError if that cannot be noted down in the run folder.
    """
    if max_requeues == 0:
        return FAILED, "MAX_REQUEUES is 0: sbatch it again to go on"
    note = run.path / ".starts_in_vain.json"
    before = _starts_in_vain(note, job)
    in_vain = 0 if attempt.came_further else before + 1
    allowed = KILLED_IN_VAIN if attempt.was_killed else max_requeues
    if in_vain > allowed:
        return FAILED, f"{before + 1} starts left no newer checkpoint: sbatch it again to go on"
    if in_vain != before:
        _note_starts_in_vain(note, job, in_vain)
    return START_AGAIN, "queued again" + (f" ({in_vain} of {allowed} without a newer checkpoint)" if in_vain else "")


def _starts_in_vain(note: Path, job: str) -> int:
    """How often in a row this job has started without coming further."""
    try:
        noted = json.loads(note.read_text())
    except (OSError, ValueError):
        return 0
    return noted["starts"] if noted["job"] == job else 0


def _note_starts_in_vain(note: Path, job: str, starts: int) -> None:
    try:
        note.parent.mkdir(parents=True, exist_ok=True)
        write_text(note, json.dumps({"job": job, "starts": starts}) + "\n")
    except OSError as error:
        raise UserError(f"{note}: cannot be written ({error.strerror}); make room, and sbatch it again") from None


def read_attempt(folder: Path, srun_status: int) -> tuple[RunFolder, Attempt]:
    """The run folder, and what happened since before.json was written."""
    note = json.loads((folder / "before.json").read_text())
    run = RunFolder(Path(note["folder"]))
    log = (folder / "log").read_text(errors="replace").splitlines()
    attempt = Attempt(
        note["status"],
        read_status(run),
        srun_status,
        came_further=newest_checkpoint(run) > note["newest_checkpoint"],
        stopped_by=None,
        gave_up=next(iter(_told(log, GAVE_UP)), None),
        error=next(reversed(_told(log, ERROR)), None),
    )
    return run, replace(attempt, stopped_by=_interruption(log, attempt))


def _told(log: list[str], mark: str) -> list[str]:
    """What lines that begin with `mark` go on to say."""
    return [line.removeprefix(mark) for line in log if line.startswith(mark)]


def _interruption(log: list[str], attempt: Attempt) -> str | None:
    """A signal, or the loss of another node.

    Neither counts where a node failed by itself: srun then ends the others with a signal, and they are left alone.
    """
    if attempt.gave_up:
        return None
    if _told(log, LOST_A_NODE):  # before the run began, nodes that do not meet are a failure
        return "the loss of another node" if attempt.status else None
    if any(_ended_by_itself(line) for line in log):
        return None
    return next(iter(_told(log, STOPPED_BY)), None) or _signal_in(attempt.srun_status)


def _ended_by_itself(line: str) -> bool:
    """Whether srun tells of a torchrun that could not start, or ended without a signal and without a word."""
    found = re.match(r"srun: error: .*Exited with exit code (\d+)", line)
    return found is not None and int(found[1]) < 128


def _signal_in(srun_status: int) -> str | None:
    """The signal that ended torchrun before it could handle one: a shell adds 128 to its number."""
    return next((number.name for number in SIGNALS if srun_status == 128 + number), None)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.after_run", description=__doc__)
    parser.add_argument("attempt", type=Path, help="folder with before.json and log")
    parser.add_argument("--job", required=True, help="number of the job, the same over all its starts")
    parser.add_argument("--srun-status", type=int, required=True, help="exit status of srun")
    parser.add_argument(
        "--max-requeues", type=int, required=True, help="how often in a row it may start in vain: no newer checkpoint"
    )
    return parser.parse_args()


def main() -> int:
    """Prints the decision; the exit status."""
    arguments = _arguments()
    run, attempt = read_attempt(arguments.attempt, arguments.srun_status)
    status, why = decide(attempt)
    if status == START_AGAIN:
        status, then = bound(run, arguments.job, attempt, arguments.max_requeues)
        why = f"{why}; {then}"
    print(f"{'error: ' if status == FAILED else ''}{run.path}: {why}", flush=True)
    return status


if __name__ == "__main__":
    exit_cleanly(main)
