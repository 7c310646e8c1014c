"""Carries out what the runs of a study need, one after the other or several at once, and says how long it will take."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from benchmarks.recipes.study import Study, Trial, next_command
from dcgan_dist.base.files import read_rows
from dcgan_dist.base.waiting import progress_bar, terminal
from dcgan_dist.reporting.facts import duration, training_seconds
from dcgan_dist.run.folder import RunFolder

ROOT = Path(__file__).resolve().parents[2]
POLL_SECONDS = 0.5
GRACE_SECONDS = 60.0  # for a run that is asked to stop, to save its checkpoint
_PRCTL_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl(2)


@dataclass(frozen=True)
class Child:
    """A command of a trial that is running."""

    trial: Trial
    command: list[str]
    process: subprocess.Popen[bytes]


def carry_out(study: Study, trials: Sequence[Trial], at_once: int, gpus: int) -> list[str]:
    """Trains and scores what is not done yet; a line for each trial that failed, which stops no other.

    If this process is asked to stop, so are the runs, which save their checkpoints; if it is killed, so are they.
    """
    waiting = deque(trial for trial in trials if next_command(study, trial))
    children: dict[int, Child] = {}
    problems: list[str] = []
    seen = _images(trials)
    _say(remaining(study, trials, at_once))
    with progress_bar("training", study.images * len(trials) - seen) as advance, _ended_with_us(children):
        while waiting or children:
            for slot in range(at_once):
                if slot not in children and waiting:
                    _say(f"{waiting[0].name} ...")
                    children[slot] = _start(study, waiting.popleft(), _environment(slot, at_once, gpus))
            time.sleep(POLL_SECONDS)
            for slot in [slot for slot, child in children.items() if child.process.poll() is not None]:
                child = children.pop(slot)
                if problem := _problem(study, child):
                    problems.append(problem)
                    _say(f"failed: {problem}")
                elif next_command(study, child.trial):
                    children[slot] = _start(study, child.trial, _environment(slot, at_once, gpus))
                else:
                    _say(f"{child.trial.name}: done; {remaining(study, trials, at_once)}")
            now = _images(trials)
            advance(max(0, now - seen))
            seen = max(seen, now)
    return problems


def _problem(study: Study, child: Child) -> str:
    """Why a trial cannot go on after a command that has ended; "" if it can."""
    if not child.process.returncode and next_command(study, child.trial) != child.command:
        return ""
    return f"{child.trial.name}: {_last_line(child.trial.log)} ({child.trial.log})"


def _say(text: str) -> None:
    terminal().print(text, markup=False, highlight=False, soft_wrap=True)


def remaining(study: Study, trials: Sequence[Trial], at_once: int) -> str:
    """How many runs and images are left, and how long their training will take at the speed of those that ran."""
    runs = [trial for trial in trials if next_command(study, trial)]
    left = study.images * len(trials) - _images(trials)
    text = f"{len(runs)} of {len(trials)} runs and {left:,} images left"
    rows = [read_rows(RunFolder(trial.folder).metrics) for trial in trials]
    trained = sum(int(own[-1]["images_seen"]) for own in rows if own)
    seconds = sum(training_seconds(own) for own in rows)
    if not left or not seconds:
        return text
    return (
        f"{text}, {duration(left * seconds / trained / at_once)} at {trained / seconds:,.0f} images/s, without scores"
    )


def _images(trials: Sequence[Trial]) -> int:
    return sum(trial.images_seen for trial in trials)


def _start(study: Study, trial: Trial, environment: dict[str, str]) -> Child:
    command = next_command(study, trial)
    assert command, "only what is not done is started"
    trial.folder.parent.mkdir(parents=True, exist_ok=True)
    library = ctypes.CDLL(None)
    with trial.log.open("ab") as log:
        process = subprocess.Popen(
            command,
            cwd=ROOT,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches this process alone, which then asks its runs to stop
            preexec_fn=lambda: _end_with_parent(library),
        )
    return Child(trial, command, process)


def _end_with_parent(library: ctypes.CDLL) -> None:
    """Asks the system to kill this process as soon as the study is killed, so that nothing trains on unseen."""
    if hasattr(library, "prctl"):  # Linux only
        library.prctl(_PRCTL_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def _environment(slot: int, at_once: int, gpus: int) -> dict[str, str]:
    """Runs at the same time have a GPU each, as far as there are some, or a share of the cores."""
    own = dict(os.environ)
    if at_once > 1 and gpus > 1:
        visible = own.get("CUDA_VISIBLE_DEVICES") or ",".join(map(str, range(gpus)))
        own["CUDA_VISIBLE_DEVICES"] = visible.split(",")[slot % gpus]
    if at_once > 1 and not gpus:
        own.setdefault("OMP_NUM_THREADS", str(max(1, len(os.sched_getaffinity(0)) // at_once)))
    return own


@contextlib.contextmanager
def _ended_with_us(children: dict[int, Child]) -> Iterator[None]:
    """Whatever ends the block, asks the children to stop, and waits for them."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        if children:
            _say("the runs are asked to save and stop; the same command goes on")
        for child in children.values():
            child.process.terminate()
        for child in children.values():
            try:
                child.process.wait(GRACE_SECONDS)
            except subprocess.TimeoutExpired:
                child.process.kill()
        signal.signal(signal.SIGTERM, before)


def _last_line(log: Path) -> str:
    """What a command that failed said last, its error if it names one."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()][-20:]
    errors = [line for line in lines if line.startswith("error:")]
    return (errors or lines or ["nothing was printed"])[-1]
