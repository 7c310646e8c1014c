"""The trackers that a configuration asks for, going on where a checkpoint left them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.files import read_rows
from dcgan_dist.config import TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.saved import Saved
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.tracker import JsonlTracker, Tracker, last_images_seen
from dcgan_dist.tracking.wandb_service import forget_failed_start, service_url, why_unreachable
from dcgan_dist.tracking.weights_and_biases import NodeTracker, WandbRun, WandbTracker, choose_mode, run_id

log = logging.getLogger(__name__)

Mode = Literal["online", "offline"]


def open_trackers(
    config: TrainConfig,
    folder: RunFolder,
    environment: dict[str, Any],
    saved: Saved | None,
    world: World,
) -> tuple[list[Tracker], dict[str, str]]:
    """This rank's trackers, going on at the checkpoint, and the ids under which others know the run.

    Rank 0 tells of the training; on every other node one rank tells W&B how the node is. Every rank must call it.
    """
    found = world.on_main(_wandb_run, config, folder, environment, saved)
    wandb: tuple[WandbRun, Mode] | None = world.broadcast_object(found)
    ids = {"wandb": wandb[0].id} if wandb else dict(saved.tracker_ids) if saved else {}
    trackers: list[Tracker] = []
    if world.is_main:
        images_seen = saved.images_seen if saved else 0
        already_sent = last_images_seen(folder.metrics)  # before the rows after the checkpoint are dropped
        trackers.append(JsonlTracker(folder.metrics, images_seen))
        if config.track.tensorboard:
            trackers.append(TensorBoardTracker(folder.path / "tensorboard", images_seen))
        if wandb:
            warnings = sum(event.get("kind") == "warning" for event in read_rows(folder.events))
            trackers += _online_or_offline(wandb, lambda run, mode: WandbTracker(run, mode, already_sent, warnings))
    elif wandb and world.local_rank == 0:
        trackers += _online_or_offline(wandb, lambda run, mode: NodeTracker(run, mode, world.rank))
    return trackers, ids


def _wandb_run(
    config: TrainConfig, folder: RunFolder, environment: dict[str, Any], saved: Saved | None
) -> tuple[WandbRun, Mode] | None:
    """Returns the run on W&B and the mode of sending it; None if W&B is off."""
    mode = choose_mode(config.track.wandb)
    if mode == "off":
        return None
    if mode == "online" and (problem := _why_unreachable()):
        mode = "offline"
        _say_offline(problem, folder.path)
    known = run_id(folder.path / "wandb", saved.tracker_ids.get("wandb") if saved else None)
    rollbacks = (saved.watch or {}).get("rollbacks", 0) if saved else 0
    return WandbRun(known, config.run.name, config.track, folder.path, config.as_dict(), environment, rollbacks), mode


def _why_unreachable() -> str | None:
    """Returns which service cannot be used and why; None if it can."""
    try:
        url = service_url()
        problem = why_unreachable(url)
    except Exception as error:  # wandb is broken or not there at all: its start will say so
        log.debug("could not ask for W&B (%s)", error)
        return None
    return f"{url}: {problem}" if problem else None


def _say_offline(problem: str, folder: Path) -> None:
    log.warning(
        "W&B cannot be used now (%s); recording offline, wandb sync %s/wandb/offline-run-* sends it later",
        problem,
        folder,
    )


def _online_or_offline(wandb: tuple[WandbRun, Mode], start: Callable[[WandbRun, Mode], Tracker]) -> list[Tracker]:
    """Returns the tracker, or none if W&B cannot even record offline: training continues without it."""
    run, mode = wandb
    if mode == "online":
        try:
            return [start(run, "online")]
        except Exception as error:  # no such project, a service that went away in this moment
            _say_offline(in_one_line(error), run.folder)
            forget_failed_start()
    try:
        return [start(run, "offline")]
    except Exception as error:
        log.warning("W&B cannot record (%s); the run goes on without W&B", in_one_line(error))
        return []
