"""The trackers that a configuration asks for, going on where a checkpoint left them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from dcgan_dist.config import TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.json_lines import read_rows
from dcgan_dist.run_folder import RunFolder
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.tracker import JsonlTracker, Tracker, last_images_seen
from dcgan_dist.tracking.weights_and_biases import NodeTracker, WandbRun, WandbTracker, choose_mode, run_id

log = logging.getLogger(__name__)

Mode = Literal["online", "offline"]


def open_trackers(
    config: TrainConfig,
    folder: RunFolder,
    environment: dict[str, Any],
    saved: dict[str, Any] | None,
    world: World,
) -> tuple[list[Tracker], dict[str, str]]:
    """This rank's trackers, going on at the checkpoint, and the ids under which others know the run.

    Rank 0 tells of the training; on every other node one rank tells W&B how the node is. Every rank must call it.
    """
    found = None
    with world.together():
        found = _wandb_run(config, folder, environment, saved) if world.is_main else None
    wandb: tuple[WandbRun, Mode] | None = world.broadcast_object(found)
    ids = {"wandb": wandb[0].id} if wandb else dict(saved["tracker_ids"]) if saved else {}
    trackers: list[Tracker] = []
    if world.is_main:
        images_seen = saved["images_seen"] if saved else 0
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
    config: TrainConfig, folder: RunFolder, environment: dict[str, Any], saved: dict[str, Any] | None
) -> tuple[WandbRun, Mode] | None:
    """Which run this is on W&B and how it is sent; None if W&B is off."""
    mode = choose_mode(config.track.wandb)
    if mode == "off":
        return None
    known = run_id(folder.path / "wandb", saved["tracker_ids"].get("wandb") if saved else None)
    rollbacks = saved.get("watch", {}).get("rollbacks", 0) if saved else 0
    return WandbRun(known, config.run.name, config.track, folder.path, config.as_dict(), environment, rollbacks), mode


def _online_or_offline(wandb: tuple[WandbRun, Mode], start: Callable[[WandbRun, Mode], Tracker]) -> list[Tracker]:
    """The tracker; none if W&B cannot even record, which is not worth the training."""
    run, mode = wandb
    for attempt in dict.fromkeys((mode, "offline")):
        try:
            return [start(run, attempt)]
        except Exception as error:  # no network, no such project, a service that is down
            way_out = "recording offline, to be synced later" if attempt == "online" else "the run goes on without W&B"
            log.warning("W&B does not answer (%s); %s", " ".join(str(error).split()), way_out)
    return []
