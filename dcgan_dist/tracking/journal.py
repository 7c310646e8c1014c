"""Records what happens to a run besides its steps, wherever people and programs look: the one way a run ends."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping

from dcgan_dist.base.errors import UserError
from dcgan_dist.run.folder import RunFolder, Status, note_event
from dcgan_dist.tracking.figures import StageClock
from dcgan_dist.tracking.tracker import Trackers

log = logging.getLogger(__name__)


class Journal:
    """Tells status.json, events.jsonl, the trackers and the console. Every rank has one; rank 0's writes files.

    `warnings` are always the signs of collapse that have not gone, kind and text.
    """

    def __init__(self, folder: RunFolder, stages: StageClock, is_main: bool) -> None:
        self.folder = folder
        self.stages = stages
        self.is_main = is_main
        self.trackers = Trackers([])

    def tell(self, trackers: Trackers) -> None:
        """Adds trackers to be told from now on."""
        self.trackers = trackers

    def started(self, images_seen: int, ranks: int, device: str) -> None:
        """Records that the run begins or continues."""
        if self.is_main:
            kind = "resume" if images_seen else "start"
            note_event(self.folder.events, images_seen, kind, f"{kind} on {ranks} rank(s) of {device}")

    def pixels_found(self, images_seen: int, text: str) -> None:
        """Records that nothing had to be decoded."""
        if self.is_main:
            log.info("%s", text)
            note_event(self.folder.events, images_seen, "pixels", text)

    def running(self, images_seen: int, warnings: Mapping[str, str]) -> None:
        """Records that the run is alive and how far it is."""
        if self.is_main:
            self.folder.try_write_status("running", images_seen, "", warnings)

    def warned(self, images_seen: int, kind: str, text: str) -> None:
        """Records a sign of collapse."""
        if self.is_main:
            log.warning("at %d images: %s", images_seen, text)
            self.trackers.alert(f"{kind} at {images_seen} images", text)
            note_event(self.folder.events, images_seen, "warning", text)

    def rolled_back(self, images_seen: int, text: str) -> None:
        """Records that the run goes back to a checkpoint. For rank 0."""
        log.warning("%s", text)
        note_event(self.folder.events, images_seen, "rollback", text)
        self.trackers.alert(f"rollback to {images_seen} images", text)

    def hung(self, images_seen: int, reason: str, warnings: Mapping[str, str]) -> None:
        """Records that the run hangs and this process is about to end."""
        if self.is_main:
            self.folder.write_status("failed", images_seen, reason, warnings, self.stages.seconds())

    def ended(self, status: Status, images_seen: int, reason: str, warnings: Mapping[str, str], text: str = "") -> None:
        """Records the end of the run. `text` goes into events.jsonl in place of the reason.

        The files come first: a tracker may wait for a network.
        """
        if self.is_main:
            note_event(self.folder.events, images_seen, status, text or reason)  # type: ignore[arg-type]
            self.folder.try_write_status(status, images_seen, reason, warnings, self.stages.seconds())
        with self.stages.during("trackers"):
            self.trackers.close(status, list(warnings))

    def closed(self, status: Status, images_seen: int, reason: str, warnings: Mapping[str, str]) -> None:
        """Prints the last lines on the console: where the time went, and the signs of collapse that lasted."""
        if self.is_main:
            self.folder.try_write_status(status, images_seen, reason, warnings, self.stages.seconds())
            log.info("%s", self.stages)
            self.say_what_lasts(warnings, "stopped" if reason else "ended")

    def finished_before(self, images_seen: int, warnings: Mapping[str, str]) -> None:
        """Records that the run was already done; the seconds of its last start stay in status.json."""
        if self.is_main:
            with contextlib.suppress(OSError, UserError):
                self.folder.lock()  # another process may be training on, to more images
                self.folder.write_status("done", images_seen, "", warnings, self.folder.seconds())
            self.say_what_lasts(warnings, "ended")

    def say_what_lasts(self, warnings: Mapping[str, str], how: str) -> None:
        """A line for each sign of collapse with which a run ended or stopped, then one of advice; nothing without."""
        for kind, text in warnings.items():
            log.warning("warning: the run %s with a sign of collapse (%s): %s", how, kind, text)
        if warnings:
            log.warning(
                "warning: its samples are probably worthless: look at %s; then train again with --train.on_collapse "
                "rollback or lower rates (--optim.discriminator_lr, --optim.generator_lr)",
                self.folder.real_grid.parent,
            )
