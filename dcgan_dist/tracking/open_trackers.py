"""The trackers that a configuration asks for, going on where a checkpoint left them."""

from __future__ import annotations

import logging
from functools import partial
from typing import Any

from dcgan_dist.config import TrainConfig
from dcgan_dist.run_folder import RunFolder
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.tracker import JsonlTracker, Tracker, last_images_seen
from dcgan_dist.tracking.weights_and_biases import WandbTracker, choose_mode, run_id

log = logging.getLogger(__name__)


def open_trackers(
    config: TrainConfig, folder: RunFolder, saved: dict[str, Any] | None
) -> tuple[list[Tracker], dict[str, str]]:
    """The trackers that are asked for, going on at the checkpoint, and the ids under which others know the run."""
    images_seen = saved["images_seen"] if saved else 0
    already_sent = last_images_seen(folder.metrics)  # before the rows after the checkpoint are dropped
    trackers: list[Tracker] = [JsonlTracker(folder.metrics, images_seen)]
    if config.track.tensorboard:
        trackers.append(TensorBoardTracker(folder.path / "tensorboard", images_seen))
    mode = choose_mode(config.track.wandb)
    if mode == "off":
        return trackers, dict(saved["tracker_ids"]) if saved else {}
    wandb_folder = folder.path / "wandb"
    known = run_id(wandb_folder, saved["tracker_ids"].get("wandb") if saved else None)
    start = partial(WandbTracker, config.track, folder.path, config.run.name, config.as_dict(), known, already_sent)
    try:
        trackers.append(start(mode))
    except Exception as error:  # no network, no such project, a service that is down
        log.warning("W&B does not answer (%s); recording offline, to be synced later", " ".join(str(error).split()))
        trackers.append(start("offline"))
    return trackers, {"wandb": known}
