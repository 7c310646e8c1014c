"""Whether the disks take what a run writes: how fast, and whether checkpoints and kept pixels fit. No torch."""

from __future__ import annotations

import contextlib
import errno
import itertools
import math
import os
import shutil
import socket
import time
from pathlib import Path

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.urls import is_url
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.pixel_file import BYTES_LEFT_FREE, PixelSet, list_pixel_files, pixel_folder
from dcgan_dist.data.shard_cache import cache_home, shard_folder
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.retention import newest_first
from launch.checks import Check

PROBE_BYTES = 32 << 20
SLOW_WRITE_MIB_A_SECOND = 20


def check_run_folder(config: TrainConfig) -> list[Check]:
    """That the run folder can be written, how fast, and that the checkpoints will fit."""
    folder = RunFolder(config.run.folder)
    parent = folder.path.absolute()
    try:
        parent = _nearest(parent)
        speed = write_speed(parent)
    except OSError as error:
        advice = "choose another --run.dir"
        advice = f"make room, or {advice}" if error.errno in (errno.ENOSPC, errno.EDQUOT) else advice
        return [Check("run folder", "fail", f"{parent}: cannot be written ({error.strerror})", advice)]
    found = f"{folder.path}: writes {speed:.0f} MiB/s"
    slow = speed < SLOW_WRITE_MIB_A_SECOND
    advice = "checkpoints are written in the background, but the last one must be done before the job is killed"
    return [
        Check("run folder", "warn" if slow else "ok", found, advice if slow else ""),
        check_disk(config, parent, shutil.disk_usage(parent).free + sum(_sizes(folder.checkpoints))),
        *check_pixels(config, parent),
    ]


def _sizes(folder: Path) -> list[int]:
    """Bytes of the checkpoints that are there, which are among those that will be."""
    return [path.stat().st_size for path in newest_first(folder)]


def write_speed(folder: Path) -> float:
    """MiB a second that reach the disk below `folder`. Raises OSError as the file system does."""
    probe = folder / f".preflight.{socket.gethostname()}.{os.getpid()}.tmp"
    begin = time.perf_counter()
    try:
        with probe.open("wb") as file:
            file.write(os.urandom(PROBE_BYTES))
            file.flush()
            os.fsync(file.fileno())
    finally:
        probe.unlink(missing_ok=True)
    return PROBE_BYTES / 2**20 / (time.perf_counter() - begin)


def check_disk(config: TrainConfig, folder: Path, free: int) -> Check:
    """That the checkpoints the run will keep fit on the disk, beside its pixels if they will be on the same."""
    needed = checkpoint_bytes(config) * most_checkpoints(config)
    found = f"{free / 2**30:.1f} GiB free, {needed / 2**30:.2f} for checkpoints"
    pixels = pixels_to_come(config) if _on_one_disk(folder, _pixel_folder(config)) else 0
    if 0 < pixels <= free - BYTES_LEFT_FREE:  # otherwise a run does not write them
        found += f", {pixels / 2**30:.2f} for pixels"
        if free - pixels < needed <= free:
            advice = "make room, or choose another --run.dir or --data.cache_dir, or --data.keep_pixels false"
            return Check("disk", "fail", f"{folder}: {found}", advice)
        needed += pixels
    if free < needed:
        return Check("disk", "fail", f"{folder}: {found}", "make room, or choose another --run.dir")
    if free < 2 * needed + (1 << 30):
        return Check("disk", "warn", f"{folder}: {found}", "little is left for samples and figures")
    return Check("disk", "ok", found)


def check_pixels(config: TrainConfig, run_folder: Path) -> list[Check]:
    """Warns if the decoded pixels will not be kept, or if they fill a disk other than that of the run folder."""
    pixels, folder = pixels_to_come(config), _pixel_folder(config)
    free = shutil.disk_usage(folder).free
    found = f"{folder}: {free / 2**30:.1f} GiB free, {pixels / 2**30:.2f} for pixels"
    if pixels and (free < pixels + BYTES_LEFT_FREE or not os.access(folder, os.W_OK)):
        return [Check("pixels", "warn", found, "every start will decode: make room, or set --data.cache_dir")]
    return [] if not pixels or _on_one_disk(folder, run_folder) else [Check("pixels", "ok", found)]


def pixels_to_come(config: TrainConfig) -> int:
    """Bytes of the file of pixels that the run will write; 0 if it writes none or there is one already."""
    data = config.data
    if not data.keep_pixels or data.loader == "stream":
        return 0
    with contextlib.suppress(UserError):
        manifest = read_manifest(data.shards)
        whose = (manifest.fingerprint, data.image_size, data.crop)
        there = (one.pixels for one in list_pixel_files(pixel_folder(shard_folder(data, manifest), data.cache_dir)))
        if whose not in [(one.fingerprint, one.size, one.crop) for one in there if one]:
            named = PixelSet(
                manifest.dataset, manifest.split, whose[0], manifest.samples, data.image_size, data.crop, ""
            )
            return named.file_bytes
    return 0


def _pixel_folder(config: TrainConfig) -> Path:
    """Where the pixels will be, or the nearest folder above it that is there."""
    shards = cache_home() if is_url(config.data.shards) else Path(config.data.shards)
    return _nearest(pixel_folder(shards, config.data.cache_dir).absolute())


def _nearest(path: Path) -> Path:
    return next(one for one in (path, *path.parents) if one.exists())


def _on_one_disk(one: Path, other: Path) -> bool:
    return one.stat().st_dev == other.stat().st_dev


def most_checkpoints(config: TrainConfig) -> int:
    """How many there will be at a time: the last, the milestones, the best, and one more while it is written."""
    keep = config.checkpoint
    milestones = _images(config) // keep.keep_every_images if keep.keep_every_images else 0
    return keep.keep_last + milestones + keep.keep_best + 1


def _images(config: TrainConfig) -> int:
    """Images that the run will take; 0 where they depend on shards that are not there."""
    with contextlib.suppress(UserError):
        return config.train.total_images or round(config.train.epochs * read_manifest(config.data.shards).samples)
    return 0


def checkpoint_bytes(config: TrainConfig) -> int:
    """Size of a checkpoint: both networks, the generator's average, and Adam's two moments of every weight."""
    base, doublings = config.model.base_channels, int(math.log2(config.data.image_size)) - 3
    channels = [base * 2**power for power in range(doublings + 1)]
    between = sum(16 * narrow * wide for narrow, wide in itertools.pairwise(channels))
    latent_size, classes = config.model.latent_size, _classes(config)
    generator = 16 * (latent_size + classes) * channels[-1] + between + 48 * base
    discriminator = 48 * base + between + 16 * channels[-1] * (1 + classes)
    copies_of_generator = 4 if config.ema.half_life_images else 3
    return (copies_of_generator * generator + 3 * discriminator) * (8 if config.train.precision == "fp64" else 4)


def _classes(config: TrainConfig) -> int:
    """Classes that the networks are told of; those stored with the images count as one, since few weigh little."""
    return 0 if config.model.classes == "none" else len(config.model.classes.split(","))
