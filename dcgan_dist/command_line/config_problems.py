"""Limits of the settings. Imports no torch, so that a typing error is reported at once."""

from __future__ import annotations

import math
from pathlib import Path

from dcgan_dist.base.urls import is_url, problem_of_url
from dcgan_dist.config import IMAGE_SIZES, TrainConfig


def problems_of(config: TrainConfig) -> list[str]:
    """Returns one line for every setting that cannot work on any hardware, with what to change."""
    found = [f"{name} = {value}: must be at least {floor}" for name, value, floor in _floors(config) if value < floor]
    for name, value, ceiling in _ceilings(config):
        if value > ceiling:
            found.append(f"{name} = {value}: must be at most {ceiling}")
    if config.data.image_size not in IMAGE_SIZES:
        found.append(f"data.image_size = {config.data.image_size}: must be one of {', '.join(map(str, IMAGE_SIZES))}")
    if config.data.cache_dir == "":
        found.append("data.cache_dir = '': must be a folder or null")
    for name, rate in (("generator", config.optim.generator_lr), ("discriminator", config.optim.discriminator_lr)):
        if not 0 < rate < math.inf:
            found.append(f"optim.{name}_lr = {rate}: must be a positive number")
    for name, beta in (("beta1", config.optim.beta1), ("beta2", config.optim.beta2)):
        if not 0 <= beta < 1:
            found.append(f"optim.{name} = {beta}: must be at least 0 and below 1")
    if not 0 <= config.optim.decay_last <= 1:
        found.append(f"optim.decay_last = {config.optim.decay_last}: must be a share of the run, from 0 to 1")
    if not 0 <= config.train.r1_gamma < math.inf:
        found.append(f"train.r1_gamma = {config.train.r1_gamma}: must be a number from 0, which turns the penalty off")
    if config.train.accumulate > 1 and config.train.batch_norm == "sync":
        found.append(
            f"train.accumulate = {config.train.accumulate}: statistics over the batches of all ranks need all images "
            "at once; set --train.batch_norm local, where each part has its own, or leave it at 1"
        )
    if not 0 <= config.ema.warmup < math.inf:
        found.append(f"ema.warmup = {config.ema.warmup}: must be a share of the images seen, as 0.05, or 0")
    if config.ema.warmup and not config.ema.half_life_images:
        found.append(f"ema.warmup = {config.ema.warmup}: there is no average; set --ema.half_life_images")
    if is_url(config.data.shards) and (problem := problem_of_url(config.data.shards)):
        found.append(f"data.shards: the URL {problem}")
    if config.data.cache_limit_gib is not None and not 0 < config.data.cache_limit_gib < math.inf:
        found.append(f"data.cache_limit_gib = {config.data.cache_limit_gib}: must be a positive number or null")
    if not 0 < config.train.epochs <= 10**9:
        found.append(f"train.epochs = {config.train.epochs}: must be a positive number, and at most a thousand million")
    names = [name.strip() for name in config.model.classes.split(",")]
    if not all(names) or len(set(names)) < len(names) or (len(names) > 1 and {"none", "class"} & set(names)):
        found.append(
            f"model.classes = {config.model.classes}: must be none, class, or different names of attributes between "
            "commas"
        )
    if config.checkpoint.keep_best and not config.evaluate.every_images:
        found.append("checkpoint.keep_best = True: needs scores; set --evaluate.every_images")
    if config.run.time_limit_minutes is not None and not 0 < config.run.time_limit_minutes < math.inf:
        found.append(f"run.time_limit_minutes = {config.run.time_limit_minutes}: must be a positive number or null")
    if config.run.name in ("", ".", "..") or "/" in config.run.name:
        found.append(f"run.name = {config.run.name!r}: must be a plain name; run.dir takes a path")
    if not 0 < len(config.track.wandb_project) <= 128 or set(config.track.wandb_project) & set("/\\#?%:"):
        found.append(
            f"track.wandb_project = {config.track.wandb_project!r}: must be 1 to 128 characters without / \\ # ? % :"
        )
    if config.run.resume not in ("auto", "never") and not _is_file(config.run.resume):
        found.append(f"run.resume = {config.run.resume}: must be auto, never, or the path of a checkpoint that exists")
    return found


def _ceilings(config: TrainConfig) -> list[tuple[str, int, int]]:
    """Upper limits: far above any use, and below what would run out of memory or overflow."""
    return [
        ("run.seed", config.run.seed, 2**63 - 1),
        ("model.latent_size", config.model.latent_size, 100_000),
        ("model.base_channels", config.model.base_channels, 4096),
        ("sample.num_images", config.sample.num_images, 10_000),
        ("track.profile_steps", config.track.profile_steps, 1000),
        ("train.total_images", config.train.total_images or 1, 10**15),
        ("run.hang_timeout_seconds", config.run.hang_timeout_seconds, 10**7),
    ]


def _floors(config: TrainConfig) -> list[tuple[str, int, int]]:
    return [
        ("run.seed", config.run.seed, 0),
        ("run.hang_timeout_seconds", config.run.hang_timeout_seconds, 1),
        ("data.batch_size_per_rank", config.data.batch_size_per_rank, 1),
        ("data.global_batch_size", 1 if config.data.global_batch_size is None else config.data.global_batch_size, 1),
        ("model.latent_size", config.model.latent_size, 2),  # single numbers of two ranks can be equal
        ("model.base_channels", config.model.base_channels, 1),
        ("train.total_images", 1 if config.train.total_images is None else config.train.total_images, 1),
        ("ema.half_life_images", config.ema.half_life_images, 0),
        ("sample.every_images", config.sample.every_images, 1),
        ("sample.num_images", config.sample.num_images, 1),
        ("checkpoint.every_images", config.checkpoint.every_images, 1),
        ("checkpoint.keep_last", config.checkpoint.keep_last, 1),
        ("checkpoint.keep_every_images", config.checkpoint.keep_every_images, 0),
        ("train.accumulate", config.train.accumulate, 1),
        ("train.max_rollbacks", config.train.max_rollbacks, 0),
        ("evaluate.every_images", config.evaluate.every_images, 0),
        ("evaluate.num_images", config.evaluate.num_images, 2),
        ("track.every_images", config.track.every_images, 1),
        ("track.profile_steps", config.track.profile_steps, 0),
    ]


def _is_file(path: str) -> bool:
    try:
        return Path(path).is_file()
    except OSError:  # a name that no file can have
        return False
