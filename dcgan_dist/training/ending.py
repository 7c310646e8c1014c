"""How a run ends: the last grid and checkpoint, status and report; and how it goes back after a collapse."""

from __future__ import annotations

import logging
import subprocess
import sys
from typing import Any

from dcgan_dist.base.errors import RunFailed, UserError, in_one_line
from dcgan_dist.base.files import keep_rows
from dcgan_dist.metrics.scores import drop_scores_after
from dcgan_dist.run.folder import RunFolder, Status
from dcgan_dist.training.plan import Run
from dcgan_dist.training.recorder import Recorder
from dcgan_dist.training.stability import Collapsed, WatchRecord
from dcgan_dist.training.state import DISCRIMINATOR_RATE_AFTER_ROLLBACK, TrainState

log = logging.getLogger(__name__)

SECONDS_FOR_A_SLOW_DISK = 24 * 3600.0  # that the others wait for rank 0's last checkpoint; if it dies, they notice


def finish(run: Run, recorder: Recorder, state: TrainState, reason: str | None) -> int:
    """Draws the last grid, saves the last checkpoint and writes the final status. Returns the exit status."""
    journal = recorder.journal
    if reason is None:
        with run.stages.during("samples"):
            recorder.sample(state)
    run.world.set_timeout(SECONDS_FOR_A_SLOW_DISK)
    with run.stages.during("checkpoints"):
        saved = run.world.broadcast_object(recorder.checkpoint(state, wait=True))  # rank 0 writes it
    if not saved:
        raise RunFailed(f"{run.folder.path}: the last checkpoint could not be written; make room and start again")
    status: Status = "preempted" if reason else "done"
    told = (status, state.images_seen, reason or "", state.watch.lasting)  # with what the last row and grid showed
    journal.ended(*told, text=f"stopped by {reason}" if reason else "the end")
    if run.world.is_main:
        log.info(
            "%s at %d images: %s", f"stopped by {reason}" if reason else "done", state.images_seen, run.folder.path
        )
        with run.stages.during("report"):
            report(run)
        _say_where_things_are(run.folder, state.images_seen)
    journal.closed(*told)
    return 0


def report(run: Run) -> None:
    """Writes the curves and the report of a run that has ended, by `dcgan_dist.report`. For rank 0.

    A report that cannot be written is logged; the run has not failed.
    """
    if not run.config.track.report:
        return
    command = [sys.executable, "-m", "dcgan_dist.report", str(run.folder.path)]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        log.warning("could not write %s (%s)", run.folder.report, in_one_line(result.stderr)[-300:])


def _say_where_things_are(folder: RunFolder, images_seen: int) -> None:
    for what, path in (
        ("samples", folder.grid(images_seen)),
        ("samples of the average", folder.ema_grid(images_seen)),
        ("real images", folder.real_grid),
        ("curves", folder.curves),
        ("report", folder.report),
        ("checkpoint", folder.checkpoint(images_seen)),
    ):
        if path.exists():
            log.info("  %-24s%s", what, path)


def roll_back(run: Run, recorder: Recorder, collapse: Collapsed) -> None:
    """Makes the best checkpoint from before the collapse, or else the last, the newest of the run folder.

    It then says how often the run went back; new latents and a lower rate of the discriminator follow from that. Raises
    RunFailed, on every rank, if the run went back too often already or nothing from before is left.
    """
    outcome = _go_back(run, recorder, collapse) if run.world.is_main else None
    failure = run.world.broadcast_object(outcome)
    if failure:
        raise RunFailed(failure)


def _go_back(run: Run, recorder: Recorder, collapse: Collapsed) -> str | None:
    """Goes back to a checkpoint. Returns why the run has to end instead, or None."""
    most, checkpointer = run.config.train.max_rollbacks, recorder.checkpoints.checkpointer
    if collapse.rollbacks >= most:
        return f"{collapse}; {collapse.rollbacks} rollback(s) did not help (train.max_rollbacks)"
    best = recorder.scoring.best if recorder.scoring and run.config.checkpoint.keep_best else None
    for target in _targets(checkpointer.saved(), collapse.since, best[1] if best else None):
        rollbacks = collapse.rollbacks + 1
        # Only what this one remembers of the run; the signs that were shown may show again.
        record = WatchRecord(rollbacks=rollbacks, last_row=target, last_grid=target)
        try:
            checkpointer.go_back_to(target, record.as_dict())
            _forget_after(run.folder, target)
        except UserError as error:
            log.warning("%s; trying the one before it", error)
            continue
        except (OSError, RuntimeError) as error:
            return f"{collapse}; could not go back: {in_one_line(error)}"
        rate = run.config.optim.discriminator_lr * DISCRIMINATOR_RATE_AFTER_ROLLBACK**rollbacks
        recorder.journal.rolled_back(
            target,
            f"rollback {rollbacks} of {most} to {target} images, with {rate:g} as the discriminator's rate, "
            f"because {collapse}",
        )
        return None
    return f"{collapse}; there is no checkpoint from before {collapse.since} images to go back to"


def _targets(saved: list[int], since: int, best: int | None) -> list[int]:
    """Checkpoints from before the collapse: the best one, then the others from the newest on."""
    before = [images_seen for images_seen in saved if images_seen <= since]
    return sorted(before, key=lambda images_seen: images_seen != best)


def _forget_after(folder: RunFolder, images_seen: int) -> None:
    """Drops figures and scores after the checkpoint the run went back to."""

    def wanted(row: dict[str, Any]) -> bool:
        return row.get("images_seen", 0) <= images_seen

    keep_rows(folder.metrics, wanted)
    drop_scores_after(folder.scores, images_seen)
