"""Files that are damaged or cannot be written."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from dcgan_dist.run.checkpoint import read_verified
from tests.faults.lab import CHECKPOINT_EVERY, GLOBAL_BATCH, Lab, Outcome, disturbed, images_redone, last_row, note
from tests.faults.scenarios.hangs import _line_with
from tests.faults.scenarios.stops import _went_on_at
from tests.running import checkpoints, read_status, user_errors, wait_until


def truncate(path: Path) -> None:
    """Leaves the first half."""
    os.truncate(path, path.stat().st_size // 2)


def flip_bit(path: Path) -> None:
    """Changes one bit in the middle, inside some tensor."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    """Leaves no byte."""
    os.truncate(path, 0)


def damage_checkpoint(lab: Lab, damage: Callable[[Path], None], ranks: int = 2) -> Outcome:
    """The newest checkpoint is damaged between a stop and a resume: it is named, and the one before it is used."""
    folder = lab.stopped(ranks)
    newest, before = checkpoints(folder)[-1], int(checkpoints(folder)[-2].stem)
    moment = note(folder)
    damage(newest)
    result = lab.finish(folder, ranks=ranks)
    if newest.exists():
        assert "trying the one before it" in _line_with(result.stderr, f"{newest}: "), result.stderr
    assert _went_on_at(result, before), result.stderr
    assert "come again" in _line_with(result.stderr, f"up to {moment.images_seen} images"), result.stderr
    return Outcome(None, images_redone(moment, result.stderr), lab.compare(folder, ranks))


def damage_all_checkpoints(lab: Lab) -> Outcome:
    """No checkpoint is whole: one line says so, and the run is not silently started anew."""
    folder = lab.stopped(1)
    for path, damage in zip(checkpoints(folder), (truncate, flip_bit, empty), strict=True):
        damage(path)
    result = lab.run(folder, ranks=1)
    assert result.returncode == 2, result
    (line,) = user_errors(result)
    assert "every checkpoint is damaged" in line
    assert "Traceback" not in result.stderr
    return Outcome(detail="refused with one line")


def die_while_saving(lab: Lab, fault: str, ranks: int = 2) -> Outcome:
    """kill -9 in the middle of writing a checkpoint, or just before it gets its name."""
    folder, number = lab.new_run(), lab.chance.randrange(1, 6)
    result = lab.run(folder, fault=f"{fault}:step={number}", ranks=ranks, max_restarts=1)
    images_before = (number - 1) * CHECKPOINT_EVERY
    if ranks == 1:  # without torchrun nobody starts it again
        assert result.returncode == -signal.SIGKILL, result
        assert [int(path.stem) for path in checkpoints(folder)][-1:] == [images_before][: number - 1], result
        result = lab.finish(folder, ranks=1)
    assert result.returncode == 0, result.stderr[-3000:]
    assert number == 1 or _went_on_at(result, images_before), result.stderr
    return Outcome(identical=lab.compare(folder, ranks), detail=f"checkpoint {number}")


def limit_file_size(lab: Lab, ranks: int = 2) -> Outcome:
    """No checkpoint can be written for a while: training goes on, says how old the last good one is, and recovers."""
    folder = lab.new_run()
    result = lab.run(folder, fault="disk-full:step=15:until=45", ranks=ranks)
    assert result.returncode == 0, result.stderr[-3000:]
    complaints = [line for line in result.stderr.splitlines() if "could not save a checkpoint" in line]
    assert len(complaints) == 3, result.stderr
    assert all(f"the last good one has {CHECKPOINT_EVERY} images and is " in line for line in complaints), complaints
    kept = [int(path.stem) // CHECKPOINT_EVERY for path in checkpoints(folder)]
    assert kept == [1, 5, 6], kept
    for path in checkpoints(folder):
        read_verified(path)
    return Outcome(redone=0, identical=lab.compare(folder, ranks), detail="3 of 6 checkpoints failed")


def fill_disk(lab: Lab, ranks: int = 2) -> Outcome:
    """The disk of the checkpoints really is full: the run ends as failed, and with more room it goes on."""
    folder = lab.new_run()
    with _small_disk(folder / "checkpoints", "1100k"):
        result = lab.run(folder, ranks=ranks)
        assert result.returncode == 1, result.stderr[-3000:]
        assert "the last checkpoint could not be written" in "".join(user_errors(result))
        assert read_status(folder)["status"] == "failed"
        assert [int(path.stem) for path in checkpoints(folder)] == [CHECKPOINT_EVERY, 2 * CHECKPOINT_EVERY]
        moment = note(folder)
        subprocess.run(["mount", "-o", "remount,size=16m", folder / "checkpoints"], check=True)
        result = lab.finish(folder, ranks=ranks)
        return Outcome(None, images_redone(moment, result.stderr), lab.compare(folder, ranks), "4 checkpoints failed")


@contextmanager
def _small_disk(folder: Path, size: str) -> Iterator[None]:
    folder.mkdir(parents=True)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


def slow_down_disk(lab: Lab, ranks: int = 2) -> Outcome:
    """Each checkpoint takes two seconds to write: training does not wait for it."""
    folder = lab.new_run()
    meanwhile = 0
    with disturbed(lab.command(folder, ranks=ranks, faulty=True), folder, "slow-disk:seconds=2") as process:
        wait_until(lambda: bool(list(folder.glob("checkpoints/.*.tmp"))), process)
        at_start = last_row(folder)
        wait_until(lambda: bool(checkpoints(folder)), process)
        meanwhile = last_row(folder) - at_start
        output = "".join(process.communicate(timeout=120))
    assert process.returncode == 0, output[-3000:]
    assert meanwhile >= 4 * GLOBAL_BATCH, f"only {meanwhile} images were trained on while a checkpoint was written"
    return Outcome(redone=0, identical=lab.compare(folder, ranks), detail=f"{meanwhile} images during one write")


def move_run(lab: Lab, ranks: int = 2) -> Outcome:
    """The run folder lies elsewhere when the run is started again."""
    folder = lab.stopped(ranks)
    elsewhere = lab.folder / "another" / "place" / folder.name
    elsewhere.parent.mkdir(parents=True, exist_ok=True)
    shutil.move(folder, elsewhere)
    moment = note(elsewhere)
    result = lab.finish(elsewhere, ranks=ranks)
    assert not folder.exists()
    return Outcome(None, images_redone(moment, result.stderr), lab.compare(elsewhere, ranks))
