"""The trackers that a configuration asks for, continuing where a checkpoint left them, and what they are told first."""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import socket
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal

import torch

import dcgan_dist
from dcgan_dist.base.errors import in_one_line
from dcgan_dist.base.files import read_rows
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.shard_format import Manifest
from dcgan_dist.distributed.world import World
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.saved import Saved
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.tracker import JsonlTracker, Tracker, last_images_seen
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


SECONDS_TO_ANSWER = 8.0

_WORDS = {
    "SSLError": "no secure connection to it; does this machine know its certificate?",
    "ProxyError": "the proxy does not let it through",
    "ConnectTimeout": "no answer",
    "ReadTimeout": "no answer",
}


def service_url() -> str:
    """Where W&B's service is, as wandb's own settings say (WANDB_BASE_URL, wandb login --host)."""
    import wandb

    return str(wandb.setup(settings=wandb.Settings(silent=True)).settings.base_url)


def why_unreachable(url: str, seconds: float = SECONDS_TO_ANSWER) -> str | None:
    """Why the service cannot be used with this user's key, in a few words; None if it can.

    wandb's own start waits and tries again for a minute and a half, and a start that failed leaves its run "in use".
    """
    found: list[str | None] = []
    asking = threading.Thread(target=lambda: found.append(_ask(url, seconds)), daemon=True)  # a name may take for ever
    asking.start()
    asking.join(seconds)
    return found[0] if found else f"no answer within {seconds:.0f} seconds"


def forget_failed_start() -> None:
    """Ends wandb's background process, which would keep a run whose start failed "in use"."""
    import wandb

    wandb.teardown()


def _ask(url: str, seconds: float) -> str | None:
    import requests

    key = os.environ.get("WANDB_API_KEY")  # without it requests takes what netrc has for this host, as wandb does
    query = {"query": "query Viewer { viewer { id } }"}
    try:
        answer = requests.post(f"{url}/graphql", json=query, auth=("api", key) if key else None, timeout=seconds)
    except requests.RequestException as error:
        return _in_words(error)
    if answer.status_code in (401, 403):
        return f"it does not accept the API key (status {answer.status_code})"
    if answer.status_code != 200:
        return f"it answers with status {answer.status_code}"
    try:
        content: Any = answer.json()
        return None if content["data"]["viewer"] else "it does not know the API key"
    except (ValueError, LookupError, TypeError):
        return "what answers there is not W&B"


def _in_words(error: Exception) -> str:
    """Returns the cause of an error, without the exceptions that wrap it."""
    name, text = type(error).__name__, str(error)
    if name in _WORDS:
        return _WORDS[name]
    if "resol" in text.lower() or "name or service" in text.lower():
        return "its name is not known here"
    return "connection refused" if "refused" in text else "the connection was cut"


def describe_environment(
    world: World, manifest: Manifest, precision: str, global_batch: int, total_images: int
) -> dict[str, Any]:
    """Names with their units, and values for JSON. Every rank must call it; all get the same but for `commit`."""
    hosts = dict.fromkeys(world.gather_objects(socket.gethostname()))
    devices = dict.fromkeys(world.gather_objects(device_name(world.device)))
    return {
        "dcgan_dist": dcgan_dist.__version__,
        "commit": _commit() if world.is_main else "",
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "device": world.device.type,
        "device_name": ", ".join(devices),
        "ranks": world.size,
        "hosts": ", ".join(hosts),
        "precision": precision,
        "global_batch": global_batch,
        "total_images": total_images,
        "dataset": f"{manifest.dataset} ({manifest.split})",
        "dataset_images": manifest.samples,
        "dataset_fingerprint": manifest.fingerprint,
    }


def device_name(device: torch.device) -> str:
    """The hardware's name as its maker writes it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            name, _, value = line.partition(":")
            if name.strip() == "model name":
                return value.strip()
    return platform.processor() or platform.machine()


def _commit() -> str:
    """What git calls this checkout, with -dirty if it was changed; nothing where the code lies in no checkout."""
    folder = Path(dcgan_dist.__file__).parents[1]
    if not (folder / ".git").exists():
        return ""
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, timeout=10, check=True).stdout.strip()
    return ""
