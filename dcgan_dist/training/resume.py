"""Which checkpoint a run continues from, and whether it may."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from dcgan_dist.base.errors import UserError, is_restart
from dcgan_dist.config import DataConfig, RunConfig, TrainConfig
from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.saved import Saved
from dcgan_dist.training.stability import WatchRecord

log = logging.getLogger(__name__)

# Settings that make a run what it is; the rest may change between a stop and a resume.
FIXED_SETTINGS = (
    "run.seed",
    "data.image_size",
    "data.crop",
    "data.flip",
    "data.augment",
    "model.latent_size",
    "model.base_channels",
    "model.discriminator_input_norm",
    "model.spectral_norm",
    "model.classes",
    "optim.generator_lr",
    "optim.discriminator_lr",
    "optim.beta1",
    "optim.beta2",
    "optim.decay_last",
    "train.loss",
    "train.r1_gamma",
    "train.precision",
    "train.batch_norm",
    "train.accumulate",
    "train.reuse_fakes",
    "ema.half_life_images",
    "ema.warmup",
)

LENGTH = ("train.epochs", "train.total_images")
"""Settings that may not change either where the learning rates depend on how long the run is."""

# A setting that is younger than a checkpoint had the effect of its default then, or else of this.
BEFORE_IT_WAS_A_SETTING = {"train.reuse_fakes": False}

# Those among them that give the weights their shapes: no checkpoint of another value can be loaded.
SHAPES = (
    *("data.image_size", "model.latent_size", "model.base_channels", "model.discriminator_input_norm"),
    "model.classes",
)


def find_checkpoint(run: RunConfig, checkpointer: Checkpointer) -> Saved | None:
    """The checkpoint to go on from as `run.resume` says, or None to start anew; the same on every rank."""
    newest = checkpointer.newest_images_seen()
    if run.resume not in ("auto", "never"):
        saved = checkpointer.load(Path(run.resume))
        if newest is not None and newest > saved.images_seen:
            if is_restart():
                return checkpointer.load_newest()  # of this very run, which has come further since its first start
            # The next resume would take the newer one, which is not of this line.
            raise UserError(
                f"run.resume = {run.resume}: {checkpointer.folder} has a checkpoint of {newest} images, newer "
                f"than the {saved.images_seen} of this one; delete what is newer or choose another --run.dir"
            )
        if Path(run.resume).resolve().parent != checkpointer.folder.resolve():
            return _as_a_branch(saved)
        return saved
    if run.resume == "never" and newest is not None and not is_restart():
        raise UserError(
            f"run.resume = never: {checkpointer.folder} has checkpoints already; choose another --run.dir, "
            "or --run.resume auto to go on from them"
        )
    return checkpointer.load_newest()


def _as_a_branch(saved: Saved) -> Saved:
    """Returns a checkpoint for a run that branches off: without the trackers' ids and the rollbacks."""
    watch = WatchRecord(last_row=saved.images_seen, last_grid=saved.images_seen).as_dict()
    return replace(saved, tracker_ids={}, watch=watch)


def check_precision(config: TrainConfig, precision: str, saved: Saved) -> None:
    """Raises UserError if `auto` would choose another arithmetic on this hardware than the run began with."""
    before = saved.precision or precision
    if before != precision and not config.run.accept_changes:
        raise UserError(
            f"train.precision = {config.train.precision}: this hardware computes in {precision} and the run in "
            f"{config.run.folder} was trained in {before}; set --train.precision {before} from the start, or say "
            "--run.accept_changes true"
        )


def choose_global_batch(
    data: DataConfig, world: World, saved: Saved | None, num_samples: int, accumulate: int = 1
) -> int:
    """Images all ranks take in a step together, from the settings and, on resume, the checkpoint.

    Raises UserError where it is larger than the data, leaves a rank, or one of its `accumulate` parts of a batch,
    without images, or would change on resume.
    """
    pinned = data.global_batch_size
    batch = pinned or data.batch_size_per_rank * world.size
    name = f"data.global_batch_size = {pinned}" if pinned else f"data.batch_size_per_rank = {data.batch_size_per_rank}"
    if batch < world.size:
        raise UserError(f"{name}: {world.size} ranks need at least one image each; raise it or start fewer ranks")
    if batch // world.size < accumulate:
        raise UserError(
            f"train.accumulate = {accumulate}: a rank has {batch // world.size} images a step, and each part needs at "
            "least one; lower it, or raise the batch"
        )
    if batch > num_samples:
        raise UserError(
            f"{name}: a step would take {batch} images over {world.size} ranks, {data.shards} has only "
            f"{num_samples}; make it smaller"
        )
    if saved and saved.global_batch != batch:
        kept = saved.global_batch
        counts = (
            f"{kept // data.batch_size_per_rank} rank(s)" if kept % data.batch_size_per_rank == 0 else "no rank count"
        )
        raise UserError(
            f"{name}: a step on {world.size} rank(s) would take {batch} images, the run was started with {kept}; "
            f"set --data.global_batch_size {kept} to go on with {world.size} (with {data.batch_size_per_rank} a rank, "
            f"{counts} would do)"
        )
    return batch


def check_identity(config: TrainConfig, fingerprint: str, saved: Saved) -> None:
    """Raises UserError naming every setting, and the data, that differ from what the checkpoint was trained with.

    With `run.accept_changes` only what the networks' shapes depend on must not differ.
    """
    now, then, default = config.as_dict(), saved.config, TrainConfig().as_dict()
    differing: dict[str, str] = {}
    for key in (*FIXED_SETTINGS, *(LENGTH if config.optim.decay_last else ())):
        section, field = key.split(".")
        fields = then.get(section)
        once = BEFORE_IT_WAS_A_SETTING.get(key, default[section][field])
        before = fields.get(field, once) if isinstance(fields, dict) else None
        if now[section][field] != before:
            differing[key] = f"{key} is {now[section][field]} and was {before}"
    if saved.dataset_fingerprint != fingerprint:
        differing["data"] = f"the images in {config.data.shards} are not those of before (another fingerprint)"
    if not differing:
        return
    what = "; ".join(differing.values())
    acceptable = not differing.keys() & set(SHAPES)
    if not (config.run.accept_changes and acceptable):
        raise UserError(
            f"this is not the run in {config.run.folder}: {what}; set it back, choose another --run.dir"
            + (", or say --run.accept_changes true" if acceptable else "")
        )
    log.warning("going on although %s", what)
