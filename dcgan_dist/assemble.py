"""Puts the parts of a run together and takes it from the first check to the last checkpoint."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dcgan_dist.checkpoint import Checkpointer
from dcgan_dist.command_line import write_yaml
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import BatchPlan, PixelSource, endless_batches, open_decoder, open_source
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.sample_order import sample_ids
from dcgan_dist.data.shard_format import Manifest, read_manifest
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.distributed.replicate import replicate
from dcgan_dist.distributed.self_check import assert_disjoint, assert_equal_on_all_ranks, checksum
from dcgan_dist.distributed.world import World, is_lost_connection, leave_after_the_culprit
from dcgan_dist.errors import RunFailed, UserError
from dcgan_dist.gan.precision import Precision, best_precision
from dcgan_dist.gan.step import GanStep
from dcgan_dist.host import keep_freed_memory, take_share_of_cores
from dcgan_dist.loop import Cadence, Every, Latents, train
from dcgan_dist.recorder import RunRecorder
from dcgan_dist.resume import check_identity, choose_global_batch, find_checkpoint
from dcgan_dist.run_folder import RunFolder
from dcgan_dist.sampling import FixedLatentSampler, save_grid
from dcgan_dist.state import TrainState, initial_state
from dcgan_dist.stop import StopRequest
from dcgan_dist.tracking.console import ConsoleTracker, decoding_bar, set_up_logging
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.throughput import Throughput
from dcgan_dist.tracking.tracker import JsonlTracker, Tracker, Trackers, last_images_seen
from dcgan_dist.tracking.weights_and_biases import WandbTracker, choose_mode, run_id

log = logging.getLogger(__name__)

# On a GPU asking all ranks whether to stop costs as much as a small step; on a CPU a step is long.
STEPS_BETWEEN_STOP_CHECKS = {"cpu": 1, "cuda": 16}


@dataclass(frozen=True)
class Data:
    """An opened and checked shard folder."""

    manifest: Manifest
    shards: MappedShards
    decode: PixelSource


@dataclass(frozen=True)
class Plan:
    """What is settled before the first step."""

    batches: BatchPlan
    total_images: int
    precision: Precision


def run(config: TrainConfig) -> int:
    """Trains as `config` says; the exit status. Raises UserError or RunFailed, the same on every rank."""
    world = World.connect()
    set_up_logging(world.rank)
    keep_freed_memory()
    folder = RunFolder(config.run.folder)
    stop = StopRequest(folder.stop_file, config.run.time_limit_minutes, STEPS_BETWEEN_STOP_CHECKS[world.device.type])
    stop.listen()
    try:
        status = _run(config, folder, stop, world)
    except (UserError, RunFailed):
        world.close()
        raise
    except Exception as error:
        # This rank leaves without a word to the others: waiting for them could take for ever.
        if not is_lost_connection(error):
            raise
        leave_after_the_culprit(world, error)
    world.close()
    return status


def _run(config: TrainConfig, folder: RunFolder, stop: StopRequest, world: World) -> int:
    data = _open_data(config, world, cores=take_share_of_cores(world))
    keep = config.checkpoint
    checkpointer = Checkpointer(folder.checkpoints, keep.keep_last, keep.keep_every_images, world)
    saved = find_checkpoint(config, checkpointer)
    plan = _settle(config, data.manifest, saved, world)
    if saved and saved["images_seen"] >= plan.total_images:
        log.info(
            "%s is finished: %d images were seen; raise --train.total_images or --train.epochs to go on, "
            "or choose another --run.dir",
            folder.path,
            saved["images_seen"],
        )
        if world.is_main:
            folder.try_write_status("done", saved["images_seen"], "")
        return 0
    with world.together():
        if world.is_main:
            folder.create(write_yaml(config))
            folder.write_status("running", saved["images_seen"] if saved else 0, "")
    state = _state(config, plan, saved, world)
    latents = Latents(plan.batches, config.model.latent_size, world, plan.precision.weights)
    _check_ranks(state, plan, latents, data.manifest, world)
    _announce(config, plan, data.manifest, state, world)
    recorder = _open_recorder(config, folder, checkpointer, plan, data.manifest, saved, world)
    try:
        source = _fill(config, data, world)
        reason = _train(config, plan, state, latents, source, recorder, stop, world)
        return _finish(state, recorder, reason, world)
    except BaseException as error:
        if world.is_main:
            checkpointer.wait()
            folder.try_write_status("failed", state.images_seen, " ".join(f"{type(error).__name__}: {error}".split()))
            recorder.trackers.close("failed")
        raise


def _open_data(config: TrainConfig, world: World, cores: int) -> Data:
    with world.together():
        manifest = read_manifest(Path(config.data.shards))
        shards = MappedShards(Path(config.data.shards), manifest)
        return Data(manifest, shards, open_decoder(config.data, shards, world, cores))
    raise AssertionError("together() raises on every rank or on none")


def _settle(config: TrainConfig, manifest: Manifest, saved: dict[str, Any] | None, world: World) -> Plan:
    """What follows from configuration, data, checkpoint and ranks; UserError where they do not fit."""
    with world.together():
        if saved:
            check_identity(config, manifest.fingerprint, saved)
    global_batch = choose_global_batch(config, world, saved, manifest.samples)
    wanted = config.train.total_images or round(config.train.epochs * manifest.samples)
    total_images = math.ceil(wanted / global_batch) * global_batch  # whole steps
    precision = Precision(_agree_on_precision(config, world), world.device)
    batches = BatchPlan.of(config.data, config.run.seed, manifest.samples, global_batch, world)
    return Plan(batches, total_images, precision)


def _agree_on_precision(config: TrainConfig, world: World) -> Any:
    """With auto, the best that every rank's hardware can do."""
    if config.train.precision != "auto":
        return config.train.precision
    able = world.gather_objects(best_precision(world.device))
    return able[0] if len(set(able)) == 1 else "fp32"


def _state(config: TrainConfig, plan: Plan, saved: dict[str, Any] | None, world: World) -> TrainState:
    state = initial_state(config, world, plan.precision)
    if saved:
        state.load_state_dict(saved, world)
        state.set_optimizer_settings(config.optim)
    return state


def _check_ranks(state: TrainState, plan: Plan, latents: Latents, manifest: Manifest, world: World) -> None:
    """A cheap look, before the first step, at what goes wrong silently where it goes wrong."""
    batches, position = plan.batches, state.images_seen
    assert_equal_on_all_ranks(
        world,
        {
            "generator weights": checksum(state.generator),
            "discriminator weights": checksum(state.discriminator),
            "data sets": manifest.fingerprint,
            "global batches": batches.global_batch,
            "images to train on": plan.total_images,
            "images seen": position,
        },
    )
    first, second = latents.at(position)
    assert_disjoint(world, "latents", [tuple(row[:4].tolist()) for row in torch.cat([first, second])])
    if position % batches.num_samples + batches.global_batch <= batches.num_samples:  # within one epoch
        assert_disjoint(world, "images", batches.ids(position))


def _announce(config: TrainConfig, plan: Plan, manifest: Manifest, state: TrainState, world: World) -> None:
    log.info(
        "%s %s on %d rank(s) of %s, %s; %d images of %s (%s); %d a step, %d in all",
        "going on with" if state.images_seen else "starting",
        config.run.folder,
        world.size,
        world.device.type,
        plan.precision.name,
        manifest.samples,
        manifest.dataset,
        manifest.split,
        plan.batches.global_batch,
        plan.total_images,
    )
    if state.images_seen:
        log.info("%d images were seen before", state.images_seen)


def _fill(config: TrainConfig, data: Data, world: World) -> PixelSource:
    """Checks every byte of the shards, each rank its part, and decodes them if they are cached."""
    with world.together():
        data.shards.verify(world.rank, world.size)
    with decoding_bar(len(data.shards) // world.size, visible=world.is_main) as report:
        return open_source(config.data, data.shards, data.decode, world, report)


def _train(
    config: TrainConfig,
    plan: Plan,
    state: TrainState,
    latents: Latents,
    source: PixelSource,
    recorder: RunRecorder,
    stop: StopRequest,
    world: World,
) -> str | None:
    """Everything from the first picture to the last step; why it stopped before the end, if it did."""
    if state.images_seen == 0:
        _show_real_images(config, plan.batches, source, recorder, world)
        recorder.sample(state)
    step = GanStep(
        replicate(state.generator, world),
        replicate(state.discriminator, world),
        state.generator_optimizer,
        state.discriminator_optimizer,
        state.generator_scaler,
        state.discriminator_scaler,
        plan.precision,
        loss_weight=plan.batches.count * world.size / plan.batches.global_batch,
    )
    heartbeat = Heartbeat(
        world,
        config.run.hang_timeout_seconds,
        lambda reason: recorder.folder.write_status("failed", state.images_seen, reason) if world.is_main else None,
    )
    reason = train(
        state,
        step,
        endless_batches(source, plan.batches, state.images_seen),
        latents,
        recorder,
        Cadence(
            Every(config.track.every_images), Every(config.sample.every_images), Every(config.checkpoint.every_images)
        ),
        plan.total_images,
        config.ema.half_life_images,
        stop,
        heartbeat,
        world,
    )
    heartbeat.stop()
    return reason


def _show_real_images(
    config: TrainConfig, batches: BatchPlan, source: PixelSource, recorder: RunRecorder, world: World
) -> None:
    if world.is_main:
        count = min(config.sample.num_images, batches.num_samples)
        ids = sample_ids(batches.seed, batches.num_samples, 0, count).tolist()
        pixels = torch.cat(list(source([ids[start : start + 64] for start in range(0, count, 64)])))
        save_grid(pixels.permute(0, 3, 1, 2), recorder.folder.real_grid)
        recorder.trackers.image("samples/real", recorder.folder.real_grid, 0)


def _finish(state: TrainState, recorder: RunRecorder, reason: str | None, world: World) -> int:
    """The last row, grid and checkpoint, and the status that people and scripts look at."""
    if reason is None:
        if world.any(bool(state.window.sums[-1] > 0)):
            recorder.row(state)
        recorder.sample(state)
    saved = recorder.checkpoint(state, wait=True)
    status = "done" if reason is None else "preempted"
    if not world.is_main:
        return 0
    recorder.trackers.close(status)
    if not saved:
        recorder.folder.try_write_status("failed", state.images_seen, "the last checkpoint could not be written")
        raise RunFailed(f"{recorder.folder.path}: the last checkpoint could not be written; make room and start again")
    recorder.folder.try_write_status(status, state.images_seen, reason or "")
    how = f"stopped by {reason}" if reason else "done"
    log.info("%s at %d images: %s", how, state.images_seen, recorder.folder.path)
    recorder.show_results(state)
    return 0


def _open_recorder(
    config: TrainConfig,
    folder: RunFolder,
    checkpointer: Checkpointer,
    plan: Plan,
    manifest: Manifest,
    saved: dict[str, Any] | None,
    world: World,
) -> RunRecorder:
    images_seen = saved["images_seen"] if saved else 0
    console = ConsoleTracker(plan.total_images, images_seen) if world.is_main else None
    trackers, tracker_ids = _open_trackers(config, folder, saved) if console else ([], {})
    return RunRecorder(
        folder=folder,
        world=world,
        num_samples=manifest.samples,
        global_batch=plan.batches.global_batch,
        checkpointer=checkpointer,
        sampler=FixedLatentSampler(
            config.run.seed, config.sample.num_images, config.model.latent_size, config.data.image_size, world
        ),
        trackers=Trackers([*trackers, console] if console else []),
        console=console,
        throughput=Throughput(world.device),
        identity={
            "seed": config.run.seed,
            "config": config.as_dict(),
            "dataset_fingerprint": manifest.fingerprint,
            "global_batch": plan.batches.global_batch,
            "tracker_ids": tracker_ids,
            "torch_version": str(torch.__version__),
        },
    )


def _open_trackers(
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
    trackers.append(
        WandbTracker(config.track, mode, folder.path, config.run.name, config.as_dict(), known, already_sent)
    )
    return trackers, {"wandb": known}
