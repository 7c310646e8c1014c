"""One function a fault: it disturbs a run, insists on what must hold, and returns what it measured."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch

from dcgan_dist.config import DataConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import read_verified
from tests.faults.lab import (
    CHECKPOINT_EVERY,
    GLOBAL_BATCH,
    SECONDS_TO_STOP,
    STEPS,
    Lab,
    Launcher,
    Moment,
    Outcome,
    assert_nobody_left,
    disturbed,
    images_redone,
    last_row,
    note,
    standalone,
    static,
    wait_for_recovery,
)
from tests.running import (
    Finished,
    checkpoints,
    free_port,
    load_checkpoint,
    metric_rows,
    rank_processes,
    read_status,
    run_module,
    user_errors,
    wait_until,
)

HANG_TIMEOUT = ("--run.hang_timeout_seconds", 4)

# --- processes that die -----------------------------------------------------------------------------------------------


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


# --- processes that hang or fail --------------------------------------------------------------------------------------


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


# --- requests to stop -------------------------------------------------------------------------------------------------


def stop_by_signal(lab: Lab, number: signal.Signals, target: str) -> Outcome:
    """A signal to torchrun, to one rank, or to all processes: one checkpoint at one count, and nothing done twice."""
    folder = lab.new_run()
    with disturbed(lab.command(folder), folder) as process:
        lab.wait_for_images(folder, process, lab.chance.randrange(1, STEPS - 10) * GLOBAL_BATCH)
        ranks = rank_processes(process)
        targets = {
            "torchrun": [process.pid],
            "a rank": [ranks[lab.chance.randrange(2)]],
            "all": [process.pid, *ranks.values()],
        }
        for pid in targets[target]:
            os.kill(pid, number)
        moment = note(folder)
        output = "".join(process.communicate(timeout=60))
    return _stopped(lab, folder, moment, output, {"SIGTERM", number.name})


def stop_by_file(lab: Lab, ranks: int = 2) -> Outcome:
    """A file named STOP in the run folder; it is gone afterwards, so that the run can be started again."""
    folder = lab.new_run()
    with disturbed(lab.command(folder, ranks=ranks), folder) as process:
        lab.wait_for_images(folder, process, lab.chance.randrange(1, STEPS - 10) * GLOBAL_BATCH)
        (folder / "STOP").touch()
        moment = note(folder)
        output = "".join(process.communicate(timeout=60))
    assert not (folder / "STOP").exists()
    assert process.returncode == 0, output
    return _stopped(lab, folder, moment, output, {"the STOP file"}, ranks)


def stop_by_time_limit(lab: Lab, ranks: int = 2) -> Outcome:
    """run.time_limit_minutes: the run stops by itself."""
    folder = lab.new_run()
    limit = ("--run.time_limit_minutes", round(lab.chance.uniform(1, 3) / 60, 4))
    result = lab.run(folder, *limit, ranks=ranks)
    assert result.returncode == 0, result.stderr[-3000:]
    stopped = _stopped(lab, folder, note(folder), result.stderr, {"the time limit"}, ranks)
    return replace(stopped, seconds=None)  # the run's own clock gave the signal


def _stopped(lab: Lab, folder: Path, moment: Moment, output: str, reasons: set[str], ranks: int = 2) -> Outcome:
    """What a run has to show that was asked to stop at `moment` and has ended."""
    seconds = time.monotonic() - moment.seconds
    assert_nobody_left(folder)
    assert seconds < SECONDS_TO_STOP, f"took {seconds:.1f} seconds to stop"
    status = read_status(folder)
    assert status["status"] == "preempted", (status, output[-3000:])
    assert status["reason"] in reasons, status
    assert int(checkpoints(folder)[-1].stem) == status["images_seen"] == last_row(folder), status
    again = lab.finish(folder, ranks=ranks)
    redone = status["images_seen"] - (status["images_seen"] if _went_on_at(again, status["images_seen"]) else 0)
    return Outcome(seconds, redone, lab.compare(folder, ranks), f"stopped at {status['images_seen']} images")


def _went_on_at(result: Finished, images: int) -> bool:
    return f" {images} images were seen before" in result.stderr


def stop_twice(lab: Lab, target: str) -> Outcome:
    """A second request while the first cannot be met, because a rank is stuck: the job ends at once."""
    folder, step = lab.new_run(), lab.chance.randrange(2, STEPS - 10)
    with disturbed(lab.command(folder, faulty=True), folder, f"stuck:rank=1:step={step}") as process:
        lab.wait_for_images(folder, process, (step - 1) * GLOBAL_BATCH)
        pid = process.pid if target == "torchrun" else rank_processes(process)[1]
        os.kill(pid, signal.SIGTERM)
        time.sleep(4)
        assert process.poll() is None, "the first request ended a stuck job"
        os.kill(pid, signal.SIGTERM)
        moment = note(folder)
        output = "".join(process.communicate(timeout=60))
    seconds = time.monotonic() - moment.seconds
    assert_nobody_left(folder)
    assert seconds < SECONDS_TO_STOP, f"took {seconds:.1f} seconds to end"
    assert process.returncode != 0, output[-3000:]
    again = lab.finish(folder)
    return _recovered(lab, folder, moment, again.stderr, seconds)


# --- the disk ---------------------------------------------------------------------------------------------------------


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


# --- the data ---------------------------------------------------------------------------------------------------------


def change_manifest(lab: Lab) -> Outcome:
    """Other images lie in the shard folder: refused with one line, unless told to accept."""
    folder, shards = lab.stopped(1), lab.folder / "other-shards"
    if not shards.exists():
        options = ("--split", "all", "--samples-per-shard", 64, "--seed", 1)
        result = run_module("data_prep.celeba", "--source", lab.faces, "--out", shards, *options)
        assert result.returncode == 0, result
    changed = ("--data.shards", shards)
    line = _refused(lab.run(folder, *changed, ranks=1))
    assert f"the images in {shards} are not those of before" in line
    result = lab.finish(folder, *changed, "--run.accept_changes", "true", ranks=1)
    assert "going on although the images" in result.stderr
    return Outcome(detail="refused; went on when told to accept")


def change_shard(lab: Lab) -> Outcome:
    """A byte of a shard has changed: refused with one line that names the file, whatever is accepted."""
    folder, shards = lab.stopped(1), lab.folder / f"changed-shards-{lab.new_run().name}"
    shutil.copytree(lab.shards, shards)
    victim = lab.chance.choice(sorted(shards.glob("*.tar")))
    flip_bit(victim)
    accept = ("--run.accept_changes", "true")
    line = _refused(lab.run(folder, *accept, "--data.shards", shards, ranks=1))
    assert f"{victim}: damaged" in line
    return Outcome(detail="refused with one line")


def _refused(result: Finished) -> str:
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr, result.stderr
    (line,) = user_errors(result)
    return line


# --- other numbers of ranks -------------------------------------------------------------------------------------------

RANKS_OF_EACH_LEG = (4, 2, 1, 3)
LEG_BATCH, LEG_STEPS = 24, 40


def change_world_size(lab: Lab) -> Outcome:
    """Stopped three times and started on other numbers of ranks: the same images and, in fp64, the same figures."""
    folder, alone = lab.new_run(), lab.new_run()
    settings = ("--train.precision", "fp64", "--data.global_batch_size", LEG_BATCH, "--track.every_images", LEG_BATCH)
    ends = [*sorted(lab.chance.sample(range(5, LEG_STEPS - 5), 3)), LEG_STEPS]
    for ranks, end in zip(RANKS_OF_EACH_LEG, ends, strict=True):
        lab.finish(folder, *settings, "--train.total_images", end * LEG_BATCH, ranks=ranks)
    lab.finish(alone, *settings, "--train.total_images", LEG_STEPS * LEG_BATCH, ranks=1)
    rows, expected = metric_rows(folder), metric_rows(alone)
    assert [row["step"] for row in rows] == list(range(1, LEG_STEPS + 1))
    furthest = max(
        abs(row[name] - other[name])
        for row, other in zip(rows, expected, strict=True)
        for name in ("loss/discriminator", "loss/generator", "score/real", "score/fake")
    )
    assert furthest < 1e-8, f"figures differ by {furthest}"
    _assert_each_sample_once(ends)
    return Outcome(detail=f"ranks {RANKS_OF_EACH_LEG} until steps {ends}: figures differ by {furthest:.1e} at most")


def _assert_each_sample_once(ends: list[int]) -> None:
    """The ranks of all legs together see every image once an epoch."""
    seen: list[int] = []
    for step in range(LEG_STEPS):
        size = next(ranks for ranks, end in zip(RANKS_OF_EACH_LEG, ends, strict=True) if step < end)
        for rank in range(size):
            world = World(rank, size, rank, size, torch.device("cpu"))
            seen += BatchPlan.of(DataConfig(), 0, 256, LEG_BATCH, world).ids(step * LEG_BATCH)
    for start in range(0, len(seen) - 255, 256):
        assert sorted(seen[start : start + 256]) == list(range(256))


# --- all of them ------------------------------------------------------------------------------------------------------

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
