"""Weights & Biases: one run on its dashboard, however often the job was stopped and started."""

from __future__ import annotations

import configparser
import logging
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import SplitResult, urlsplit

from dcgan_dist.base.files import write_text
from dcgan_dist.base.waiting import told_if_long
from dcgan_dist.config import TrackConfig
from dcgan_dist.tracking.tracker import Row

log = logging.getLogger(__name__)

LONGEST_TAG = 64
SECONDS_TO_START = 10.0
SECONDS_TO_FINISH = {False: 60.0, True: 600.0}  # with checkpoints there may be gigabytes left to send
LOWER_IS_BETTER = ("swd", "fid", "kid")


def choose_mode(asked: Literal["auto", "online", "offline", "off"]) -> Literal["online", "offline", "off"]:
    """auto becomes online where an API key is found, else off, with a line that says so."""
    if asked != "auto":
        return asked
    if mode := os.environ.get("WANDB_MODE"):
        return {"offline": "offline", "online": "online"}.get(mode, "off")  # type: ignore[return-value]
    if has_key():
        return "online"
    log.info("W&B is off: no API key found (wandb login, or --track.wandb offline to sync later)")
    return "off"


def run_id(folder: Path, saved: str | None) -> str:
    """The id of this run folder on the server: its own, else that of its checkpoint, else a new one."""
    path = folder / "run_id"
    known = (path.read_text().strip() if path.exists() else "") or saved or secrets.token_hex(4)
    folder.mkdir(parents=True, exist_ok=True)
    write_text(path, f"{known}\n")
    return known


def has_key() -> bool:
    """Whether an API key is found where wandb looks for it."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    file = Path(os.environ.get("NETRC", "~/.netrc")).expanduser()
    try:
        told = file.read_text(errors="replace")
    except OSError:
        return False
    host = service_address().hostname
    return host is not None and host.removeprefix("api.") in told


def service_address() -> SplitResult:
    """Where W&B is, by WANDB_BASE_URL or `wandb login --host`; without wandb, whose import takes a second."""
    own, settings = urlsplit("https://api.wandb.ai"), configparser.ConfigParser()
    try:
        settings.read(Path(os.environ.get("WANDB_CONFIG_DIR", "~/.config/wandb")).expanduser() / "settings")
        given = urlsplit(os.environ.get("WANDB_BASE_URL") or settings.get("default", "base_url", fallback=""))
        return given if given.hostname else own
    except (configparser.Error, ValueError):  # no file of settings, or no URL
        return own


@dataclass(frozen=True)
class WandbRun:
    """A run on W&B; the same object describes it on every node and after every restart."""

    id: str
    name: str
    track: TrackConfig
    folder: Path
    settings: dict[str, Any]
    environment: dict[str, Any]
    rollbacks: int = 0
    """After each it is another run of the group there: W&B takes no step twice, and would drop the new line."""

    def tags(self) -> list[str]:
        """Tags to filter runs by, plus those of WANDB_TAGS: `64px`, `bf16`, `8 ranks`, the device, the data set."""
        told, own = self.environment, os.environ.get("WANDB_TAGS", "").split(",")
        ranks = f"{told['ranks']} rank{'s' * (told['ranks'] != 1)}"
        size = f"{self.settings['data']['image_size']}px"
        tags = [size, told["precision"], ranks, told["device_name"], told["dataset"], *own]
        return list(dict.fromkeys(tag.strip()[:LONGEST_TAG] for tag in tags if tag.strip()))

    def start(self, mode: Literal["online", "offline"], job_type: str, node: str = "") -> Any:
        """Starts or goes on with the run, or with the one of a further `node`; all of a name are one group."""
        import wandb

        self.folder.mkdir(parents=True, exist_ok=True)
        line = [f"rollback {self.rollbacks}", f"r{self.rollbacks}"] if self.rollbacks else ["", ""]
        with told_if_long("W&B to open the run", None, "--track.wandb offline needs no server"):
            return wandb.init(
                project=self.track.wandb_project,
                name=" ".join(part for part in (self.name, line[0], node) if part),
                id="-".join(part for part in (self.id, line[1], node.replace(" ", "")) if part),
                group=os.environ.get("WANDB_RUN_GROUP", self.name),
                job_type=job_type,
                tags=self.tags(),
                resume="allow",
                mode=mode,
                dir=str(self.folder),
                config={**self.settings, "environment": self.environment},
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    init_timeout=SECONDS_TO_START,
                    finish_timeout=SECONDS_TO_FINISH[self.track.wandb_checkpoints],
                    finish_timeout_raises=True,
                ),
            )


def _finish(run: Any, status: str) -> None:
    """Finishes a run on the server, after sending what is left."""
    limit, folder = run.settings.finish_timeout, run.settings.sync_dir
    try:
        with told_if_long("W&B to take the rest of the run", limit, "what it does not take, wandb sync can send later"):
            run.finish(exit_code=1 if status == "failed" else 0)
    except TimeoutError:
        log.warning("W&B did not take the rest of the run; all of it is recorded: wandb sync %s sends it later", folder)


class WandbTracker:
    """Sends rows, grids and, if asked, checkpoints to the run, which it starts or goes on with."""

    def __init__(self, run: WandbRun, mode: Literal["online", "offline"], already_sent: int, warnings: int = 0) -> None:
        """`already_sent`: rows up to this `images_seen` were recorded before a crash, and offline would come twice.

        Online the server knows what it has, and ignores steps that it has already. `warnings`: how many there were
        before this start.
        """
        import wandb

        self._wandb = wandb
        self._already_sent = already_sent if mode == "offline" else -1
        self._run = run.start(mode, "train")
        self._with_checkpoints = run.track.wandb_checkpoints
        self._run.define_metric("images_seen")
        self._run.define_metric("*", step_metric="images_seen")
        self._ranks, self._warnings = run.environment["ranks"], warnings

    def log(self, row: Row) -> None:
        """One point on each curve, over `images_seen`, which is W&B's step too: starts then follow on each other."""
        if row["images_seen"] > self._already_sent:
            self._run.log({**row, "events/ranks": self._ranks}, step=int(row["images_seen"]))

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """Sends one grid."""
        if images_seen > self._already_sent:
            self._run.log({name: self._wandb.Image(str(path)), "images_seen": images_seen}, step=images_seen)

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """A new version of the run's model, with `images_seen` as its alias, if `track.wandb_checkpoints` asks for it.

        W&B takes a copy of its own: the file may be deleted before it is sent.
        """
        if self._with_checkpoints and path.exists():  # it may have been deleted while this waited in the queue
            model = self._wandb.Artifact(f"{self._run.id}-checkpoint", "model", metadata={"images_seen": images_seen})
            model.add_file(str(path), "checkpoint.pt")
            self._run.log_artifact(model, aliases=["latest", f"images-{images_seen}"])

    def alert(self, title: str, text: str) -> None:
        """Sends a message to where the user has W&B send its alerts, and counts it beside the last row."""
        self._run.alert(title=title, text=text, level="WARN")
        self._warnings += 1
        self._run.log({"events/warnings": self._warnings}, commit=False)  # the grid of this step is still to come

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Ends the run on the server; a preempted one can be resumed.

        The summary says how it ended, and names the signs of collapse that lasted: "" if there are none.
        """
        self._run.summary["status"] = status
        self._run.summary["warnings"] = ", ".join(warnings)
        _finish(self._run, status)


class NodeTracker:
    """A further node's processors, memory and network: a run of its own in the same group, because W&B measures a run
    on one machine only, unless a server joins several."""

    def __init__(self, run: WandbRun, mode: Literal["online", "offline"], rank: int) -> None:
        """`rank`: the first on this node; the run of a node is found again by it."""
        self._run = run.start(mode, "node", f"node of rank {rank}")

    def log(self, row: Row) -> None:
        """Does nothing: rank 0 logs the figures."""

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """Does nothing: rank 0 sends the pictures."""

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Does nothing: rank 0 sends the checkpoints."""

    def alert(self, title: str, text: str) -> None:
        """Does nothing: rank 0 sends the warnings."""

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Ends the node's run."""
        _finish(self._run, status)
