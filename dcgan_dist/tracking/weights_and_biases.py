"""Weights & Biases: one run on its dashboard, however often the job was stopped and started."""

from __future__ import annotations

import logging
import os
import secrets
from pathlib import Path
from typing import Any, Literal

from dcgan_dist.config import TrackConfig
from dcgan_dist.files import write_text
from dcgan_dist.tracking.tracker import Row

log = logging.getLogger(__name__)


def choose_mode(asked: Literal["auto", "online", "offline", "off"]) -> Literal["online", "offline", "off"]:
    """auto becomes online where an API key is found, else off, with a line that says so."""
    if asked != "auto":
        return asked
    if mode := os.environ.get("WANDB_MODE"):
        return {"offline": "offline", "online": "online"}.get(mode, "off")  # type: ignore[return-value]
    if os.environ.get("WANDB_API_KEY") or _key_in_netrc():
        return "online"
    log.info("W&B is off: no API key found (wandb login, or --track.wandb offline to sync later)")
    return "off"


def run_id(folder: Path, saved: str | None) -> str:
    """The id of this run folder on the server: the checkpoint's, else the folder's own, else a new one."""
    path = folder / "run_id"
    known = saved or (path.read_text().strip() if path.exists() else "") or secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{known}\n")
    return known


def _key_in_netrc() -> bool:
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        return "wandb.ai" in file.read_text()
    except OSError:
        return False


class WandbTracker:
    """Sends rows and grids to the run `run_id`, which it starts or goes on with."""

    def __init__(
        self,
        config: TrackConfig,
        folder: Path,
        name: str,
        settings: dict[str, Any],
        run_id: str,
        already_sent: int,
        mode: Literal["online", "offline"],
    ) -> None:
        """`already_sent`: rows up to this `images_seen` were sent before a crash and would come twice."""
        import wandb

        self._wandb = wandb
        self._already_sent = already_sent
        folder.mkdir(parents=True, exist_ok=True)
        self._run = wandb.init(
            project=config.wandb_project,
            name=name,
            id=run_id,
            resume="allow",
            mode=mode,
            dir=str(folder),
            config=settings,
            settings=wandb.Settings(console="off", silent=True),
        )
        self._run.define_metric("images_seen")
        self._run.define_metric("*", step_metric="images_seen")

    def log(self, row: Row) -> None:
        """One point on each curve, over `images_seen`."""
        if row["images_seen"] > self._already_sent:
            self._run.log(dict(row))

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """One grid as media."""
        if images_seen > self._already_sent:
            self._run.log({name: self._wandb.Image(str(path)), "images_seen": images_seen})

    def close(self, status: str) -> None:
        """Ends the run on the server; a preempted one can be resumed."""
        self._run.summary["status"] = status
        self._run.finish(exit_code=1 if status == "failed" else 0)
