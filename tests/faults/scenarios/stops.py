"""Requests to stop."""

from __future__ import annotations

import os
import signal
import time
from dataclasses import replace
from pathlib import Path

from tests.faults.lab import (
    GLOBAL_BATCH,
    SECONDS_TO_STOP,
    STEPS,
    Lab,
    Moment,
    Outcome,
    assert_nobody_left,
    disturbed,
    last_row,
    note,
)
from tests.faults.scenarios.deaths import _recovered
from tests.running import Finished, checkpoints, rank_processes, read_status


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
