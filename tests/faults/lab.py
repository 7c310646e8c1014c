"""Where faults are tried: the run that is disturbed, the undisturbed one it must equal, and what is measured."""

from __future__ import annotations

import contextlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.running import (
    SMALL,
    Finished,
    assert_same_tensors,
    checkpoints,
    free_port,
    load_checkpoint,
    metric_rows,
    processes_naming,
    rank_processes,
    read_status,
    run_command,
    run_module,
    started,
    wait_until,
)

STEPS, GLOBAL_BATCH = 60, 32
TOTAL_IMAGES = STEPS * GLOBAL_BATCH
CHECKPOINT_EVERY = 10 * GLOBAL_BATCH
SECONDS_TO_START = 8.0  # of two ranks on two cores, most of them spent on importing torch
SECONDS_TO_STOP = 20.0  # promised are 10 and a step; the table shows what it took, this allows for a busy machine

# Everything but the run folder, the shards and the launcher.
SETTINGS = (
    *SMALL,
    *("--data.global_batch_size", GLOBAL_BATCH),
    *("--data.flip", "true"),
    *("--train.total_images", TOTAL_IMAGES),
    *("--track.every_images", GLOBAL_BATCH),
    *("--checkpoint.every_images", CHECKPOINT_EVERY),
    *("--sample.every_images", 10**6),
    *("--sample.num_images", 4),
)

# torchrun waits half a minute for a rank that does not react before it kills it; the suite need not.
ENVIRONMENT = {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "5"}

# The columns that are functions of the configuration; the others are clocks.
EXACT_COLUMNS = (
    *("step", "images_seen", "epoch"),
    *("loss/discriminator", "loss/generator", "score/real", "score/fake"),
)

Launcher = Callable[[int], list[str]]
"""From a number of restarts to the options of torchrun."""


def standalone(max_restarts: int) -> list[str]:
    """A job on one node that looks for a port by itself."""
    return ["--standalone", "--max-restarts", str(max_restarts)]


def static(max_restarts: int) -> list[str]:
    """A job on one node whose port is given."""
    return ["--nnodes", "1", "--max-restarts", str(max_restarts), "--master-port", str(free_port())]


@dataclass(frozen=True)
class Moment:
    """What a run had done when it was disturbed."""

    seconds: float
    """On the monotonic clock."""
    images_seen: int
    newest_checkpoint: int
    """Images seen at it; 0 if there is none."""
    metrics_inode: int | None
    """metrics.jsonl is written anew at each start."""


@dataclass(frozen=True)
class Outcome:
    """What a run that got over its fault has shown; None where a fault has nothing to show."""

    seconds: float | None = None
    """From the fault to the next step, or to the end where the job has to end."""
    redone: int | None = None
    """Images that were trained on a second time."""
    identical: bool | None = None
    """Whether weights, optimizers and rows of figures are those of the undisturbed run, to the last bit."""
    detail: str = ""


@dataclass
class Lab:
    """A folder to work in, data, and a source of random moments."""

    folder: Path
    faces: Path
    shards: Path
    chance: random.Random
    _references: dict[int, Path] = field(default_factory=dict)
    _stopped: dict[int, Path] = field(default_factory=dict)
    _count: int = 0

    @classmethod
    def set_up(cls, folder: Path, seed: int) -> Lab:
        """Draws 256 faces and packs them into four shards below `folder`."""
        faces, shards = folder / "faces", folder / "shards"
        drawn = run_module("data_prep.synthetic", "--out", faces, "--num-images", 256, "--seed", 0)
        assert drawn.returncode == 0, drawn
        options = ("--split", "all", "--samples-per-shard", 64)
        packed = run_module("data_prep.celeba", "--source", faces, "--out", shards, *options)
        assert packed.returncode == 0, packed
        return cls(folder, faces, shards, random.Random(seed))

    def new_run(self) -> Path:
        """A run folder that does not exist yet."""
        self._count += 1
        return self.folder / f"run-{self._count:04d}"

    def reference(self, ranks: int) -> Path:
        """The run folder of the undisturbed run."""
        if ranks not in self._references:
            folder = self.folder / f"reference-{ranks}"
            self.finish(folder, ranks=ranks)
            self._references[ranks] = folder
        return self._references[ranks]

    def stopped(self, ranks: int) -> Path:
        """A copy of a run that was asked to stop between two checkpoints and has three of them."""
        if ranks not in self._stopped:
            folder = self.folder / f"stopped-{ranks}"
            with started(self.command(folder, ranks=ranks)) as process:
                self.wait_for_images(folder, process, 2 * CHECKPOINT_EVERY + GLOBAL_BATCH)
                (folder / "STOP").touch()
                output = process.communicate(timeout=60)
            assert process.returncode == 0, output
            assert len(checkpoints(folder)) == 3, output
            self._stopped[ranks] = folder
        copy = self.new_run()
        shutil.copytree(self._stopped[ranks], copy)
        return copy

    def command(
        self,
        folder: Path,
        *settings: object,
        ranks: int = 2,
        launcher: Launcher = standalone,
        max_restarts: int = 0,
        faulty: bool = False,
    ) -> list[str]:
        """The training command; the later of two equal settings wins."""
        return self.training(
            folder, *settings, ranks=ranks, options=launcher(max_restarts) if ranks > 1 else [], faulty=faulty
        )

    def training(
        self, folder: Path, *settings: object, ranks: int, options: list[str], faulty: bool = False
    ) -> list[str]:
        """The same with all of torchrun's options but the number of ranks and the signals."""
        module = "tests.faults.faulty_train" if faulty else "dcgan_dist.train"
        arguments = [*SETTINGS, "--data.shards", self.shards, "--run.dir", folder, *settings]
        python = [sys.executable, "-m"]
        if ranks > 1 or options:
            signals = ["--signals-to-handle", "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR2"]
            python += ["torch.distributed.run", "--nproc_per_node", str(ranks), *signals, *options, "-m"]
        return [*python, module, *map(str, arguments)]

    def run(self, folder: Path, *settings: object, fault: str = "", ranks: int = 2, max_restarts: int = 0) -> Finished:
        """Trains to the end, good or bad; nothing may be left running then."""
        command = self.command(folder, *settings, ranks=ranks, max_restarts=max_restarts, faulty=bool(fault))
        result = run_command(command, env=environment(fault), timeout=180)
        assert_nobody_left(folder)
        return result

    def finish(self, folder: Path, *settings: object, ranks: int = 2) -> Finished:
        """Starts the run, or goes on with it, without a fault, and insists on a good end."""
        result = self.run(folder, *settings, ranks=ranks)
        assert result.returncode == 0, result.stderr[-2000:]
        return result

    # --- waiting ------------------------------------------------------------------------------------------------------

    def wait_for_images(self, folder: Path, process: subprocess.Popen[str], images: int) -> None:
        """Returns when the run has logged so many images."""
        wait_until(lambda: last_row(folder) >= images, process)

    def wait_for_random_moment(self, folder: Path, process: subprocess.Popen[str]) -> None:
        """Returns anywhere between the birth of the ranks and the last steps; one time in six before the first."""
        if self.chance.random() < 1 / 6:
            wait_until(lambda: len(rank_processes(process)) > 1, process)
            time.sleep(self.chance.uniform(0, SECONDS_TO_START))
            return
        self.wait_for_images(folder, process, self.chance.randrange(1, STEPS - 2) * GLOBAL_BATCH)
        time.sleep(self.chance.uniform(0, 0.1))  # anywhere within a step

    # --- judging ------------------------------------------------------------------------------------------------------

    def compare(self, folder: Path, ranks: int = 2, every_row: bool = True) -> bool:
        """Whether the finished run equals the undisturbed one; AssertionError if it left something in disorder.

        `every_row` is false for runs that logged more seldom.
        """
        assert read_status(folder)["status"] == "done", read_status(folder)
        assert not list(folder.rglob("*.tmp")), "half-written files are left"
        rows = metric_rows(folder)
        steps = [row["step"] for row in rows]
        assert steps == sorted(set(steps)), "metrics.jsonl: a row comes twice, or out of order"
        assert len(steps) == STEPS or not every_row, f"metrics.jsonl: {len(steps)} rows of {STEPS}"
        reference = self.reference(ranks)
        try:
            assert not every_row or _exact(rows) == _exact(metric_rows(reference)), "figures differ"
            assert_same_tensors(load_checkpoint(checkpoints(folder)[-1]), load_checkpoint(checkpoints(reference)[-1]))
        except AssertionError:
            return False
        return True


def _exact(rows: list[dict[str, float]]) -> list[list[float]]:
    return [[row[name] for name in EXACT_COLUMNS] for row in rows]


def environment(fault: str = "") -> Mapping[str, str]:
    """What the suite's torchruns are started with."""
    return {**ENVIRONMENT, "FAULT": fault}


def last_row(folder: Path) -> int:
    """Images seen at the last whole row of figures; 0 if there is none yet."""
    with contextlib.suppress(ValueError, IndexError):
        return int(metric_rows(folder)[-1]["images_seen"])
    return 0


def note(folder: Path) -> Moment:
    """How far the run is now."""
    saved = checkpoints(folder)
    metrics = folder / "metrics.jsonl"
    return Moment(
        time.monotonic(),
        last_row(folder),
        int(saved[-1].stem) if saved else 0,
        metrics.stat().st_ino if metrics.exists() else None,
    )


def wait_for_recovery(
    folder: Path, moment: Moment, process: subprocess.Popen[str], timeout: float = 90
) -> float | None:
    """Seconds from `moment` to the first step after it that a restarted run has logged; None if there is none to come.

    The pipes of `process` are not read meanwhile: what it prints must be short.
    """

    def recovered() -> bool:
        new = note(folder)
        return new.metrics_inode != moment.metrics_inode and new.images_seen > moment.newest_checkpoint

    while not recovered():
        if process.poll() is not None:
            return None
        assert time.monotonic() < moment.seconds + timeout, f"has not recovered within {timeout} seconds"
        time.sleep(0.05)
    return time.monotonic() - moment.seconds


def images_redone(moment: Moment, output: str) -> int:
    """Images seen before `moment` and again after it, by what the last start in `output` said of its checkpoint."""
    starts = re.findall(r" starting |(\d+) images were seen before|is finished: (\d+)", output)
    assert starts, output[-2000:]
    return max(0, moment.images_seen - int("".join(starts[-1]) or 0))


def assert_nobody_left(folder: Path, within: float = 3.0) -> None:
    """No process of the run is alive, `within` seconds from now at the latest; ends those that are."""
    end = time.monotonic() + within
    while left := processes_naming(folder):
        if time.monotonic() > end:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise AssertionError(f"{len(left)} processes of the run were left behind")
        time.sleep(0.05)


@contextlib.contextmanager
def disturbed(command: list[str], folder: Path, fault: str = "") -> Iterator[subprocess.Popen[str]]:
    """Starts a run that will be disturbed; when the block ends, no process of it is left, orphans included."""
    try:
        with started(command, env=environment(fault)) as process:
            yield process
    finally:
        with contextlib.suppress(AssertionError):
            assert_nobody_left(folder, within=0)
