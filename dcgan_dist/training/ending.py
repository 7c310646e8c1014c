"""How a run ends well: the last grid and checkpoint, its status, its report, and where people find them."""

from __future__ import annotations

import logging
import subprocess
import sys

from dcgan_dist.base.errors import RunFailed, in_one_line
from dcgan_dist.run.folder import RunFolder, Status
from dcgan_dist.training.plan import Run
from dcgan_dist.training.recorder import Recorder
from dcgan_dist.training.state import TrainState

log = logging.getLogger(__name__)


def finish(run: Run, recorder: Recorder, state: TrainState, reason: str | None) -> int:
    """Draws the last grid, saves the last checkpoint and writes the final status. Returns the exit status."""
    journal = recorder.journal
    if reason is None:
        with run.stages.during("samples"):
            recorder.sample(state)
    with run.stages.during("checkpoints"):
        saved = recorder.checkpoint(state, wait=True)
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
