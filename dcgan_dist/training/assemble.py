"""Puts the parts of a run together and takes it from the first check to the last checkpoint."""

from __future__ import annotations

import logging
import sys
from typing import Literal

from dcgan_dist.base.errors import Interrupted, RunFailed, UserError
from dcgan_dist.base.stage_clock import StageClock
from dcgan_dist.command_line.train_config import write_yaml
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.dataset import Data, open_data
from dcgan_dist.data.loader import PixelSource, endless_batches, open_source
from dcgan_dist.data.shard_format import ShardError
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.distributed.host import keep_freed_memory, take_share_of_cores
from dcgan_dist.distributed.leaving import (
    is_lost_connection,
    is_out_of_memory,
    leave_after_the_culprit,
    leave_out_of_memory,
)
from dcgan_dist.distributed.self_check import assert_equal_on_all_ranks
from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.events import note_event
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.console import decoding_bar, set_up_logging
from dcgan_dist.tracking.profile import StepProfile
from dcgan_dist.training.engine import CapturedUpdate, EagerUpdate, choose_kernels, open_update
from dcgan_dist.training.loop import Cadence, Every, Latents, train
from dcgan_dist.training.plan import Plan, announce, check_ranks, note_start, restore, settle
from dcgan_dist.training.recorder import RunRecorder, open_recorder
from dcgan_dist.training.resume import find_checkpoint
from dcgan_dist.training.rollback import as_resumed, roll_back
from dcgan_dist.training.scoring import check_scores, open_scores
from dcgan_dist.training.stability import Collapsed, lasting_signs
from dcgan_dist.training.state import TrainState
from dcgan_dist.training.watch import say_what_lasts

log = logging.getLogger(__name__)

# On a GPU asking all ranks whether to stop costs as much as a small step; on a CPU a step is long.
MOST_STEPS_BETWEEN_STOP_CHECKS = {"cpu": 1, "cuda": 16}


def run(config: TrainConfig) -> int:
    """Trains as `config` says; the exit status. Raises UserError or RunFailed, the same on every rank."""
    stages = StageClock()
    world = World.connect()
    set_up_logging(world.rank)
    keep_freed_memory()
    sys.setswitchinterval(0.001)  # seconds, not 0.005: a step is as short, and threads write grids beside it
    choose_kernels(config.train)
    folder = RunFolder(config.run.folder)
    stop = StopRequest(
        folder.stop_file, config.run.time_limit_minutes, MOST_STEPS_BETWEEN_STOP_CHECKS[world.device.type]
    )
    stop.listen()
    try:
        status = None
        while status is None:  # once, and once more after each rollback
            status = _run(config, folder, stop, stages, world)
            stages.enter("start")
            config = as_resumed(config)
    except (UserError, RunFailed):
        world.close()
        raise
    except Exception as error:
        # This rank leaves without a word to the others: waiting for them could take for ever.
        if is_out_of_memory(error):
            leave_out_of_memory(world, error)
        if not is_lost_connection(error):
            raise
        leave_after_the_culprit(world, error)
    world.close()
    return status


def _run(config: TrainConfig, folder: RunFolder, stop: StopRequest, stages: StageClock, world: World) -> int | None:
    """From the newest checkpoint to the end: the exit status, or None if the run went back to an earlier checkpoint."""
    assert_equal_on_all_ranks(world, {f"the settings of {name}": section for name, section in config.as_dict().items()})
    data = open_data(config.data, world, cores=take_share_of_cores(world))
    keep = config.checkpoint
    checkpointer = Checkpointer(
        folder.checkpoints, keep.keep_last, keep.keep_every_images, world, rely_on=(folder.metrics, folder.scores)
    )
    saved = find_checkpoint(config, checkpointer)
    plan = settle(config, data.manifest, saved, world)
    if saved and saved["images_seen"] >= plan.total_images:
        log.info(
            "%s is finished: %d images were seen; raise --train.total_images or --train.epochs to go on, "
            "or choose another --run.dir",
            folder.path,
            saved["images_seen"],
        )
        lasting = lasting_signs(saved)
        if world.is_main:
            folder.try_write_status("done", saved["images_seen"], "", lasting, folder.seconds())
            say_what_lasts(lasting, "ended", folder)
        return 0
    state = restore(config, plan, saved, world)
    rollbacks = state.watch.rollbacks
    latents = Latents(plan.batches, config.model.latent_size, world, plan.precision.weights, rollbacks)
    check_ranks(state, plan, latents, data.manifest, world)
    with world.together():
        check_scores(config)
        if world.is_main:
            folder.create(write_yaml(config))
            folder.write_status("running", state.images_seen, "", state.watch.lasting)
    announce(config, plan, data.manifest, state, world)
    recorder = None
    try:
        recorder = open_recorder(
            config, folder, checkpointer, plan.batches, plan.total_images, plan.precision, data.manifest, saved, world,
            stages,
        )  # fmt: skip
        note_start(folder, state, world)
        stages.enter("decode")
        source = _fill(config, data, stop, world)
        stages.enter("start")
        scores = open_scores(config, data.manifest, source, folder.scores, state.images_seen, world)
        recorder.scores = scores
        if scores and scores.best and recorder.keep_best:
            _, checkpointer.best = scores.best
        return _train_or_roll_back(config, plan, state, latents, source, recorder, stop, world)
    except Interrupted as asked:
        return _end_before_first_step(folder, state, recorder, str(asked), stages, world)
    except BaseException as error:
        if isinstance(error, ShardError) and not world.is_main:
            log.error("%s", error)  # this rank's alone: a damaged image that turned up while streaming
        if world.is_main:
            checkpointer.wait()
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            folder.try_write_status("failed", state.images_seen, reason, state.watch.lasting, stages.seconds())
            note_event(folder.events, state.images_seen, "failed", reason)
            if recorder:
                recorder.trackers.close("failed", state.watch.shown)
            if recorder and isinstance(error, RunFailed):
                recorder.report()
        raise


def _end_before_first_step(
    folder: RunFolder, state: TrainState, recorder: RunRecorder | None, reason: str, stages: StageClock, world: World
) -> int:
    """Says that the run was asked to stop before it had anything to save."""
    log.info("stopped by %s before the first step: %s", reason, folder.path)
    if world.is_main:
        folder.try_write_status("preempted", state.images_seen, reason, state.watch.lasting, stages.seconds())
        note_event(folder.events, state.images_seen, "preempted", f"stopped by {reason} before the first step")
    if recorder:
        recorder.trackers.close("preempted", state.watch.shown)
    return 0


def _fill(config: TrainConfig, data: Data, stop: StopRequest, world: World) -> PixelSource:
    """Checks every byte of the shards, each rank its part, and decodes them if they are cached.

    Raises Interrupted, on every rank, if one is asked to stop meanwhile.
    """
    with world.together():  # each node may have a copy of its own
        data.shards.verify(world.local_rank, world.local_size, before_each=stop.raise_if_asked)
    with decoding_bar(len(data.shards) // world.size, visible=world.is_main) as show:

        def report(images: int) -> None:
            stop.raise_if_asked()
            show(images)

        return open_source(config.data, data.shards, data.decode, world, report)


def _train_or_roll_back(
    config: TrainConfig,
    plan: Plan,
    state: TrainState,
    latents: Latents,
    source: PixelSource,
    recorder: RunRecorder,
    stop: StopRequest,
    world: World,
) -> int | None:
    """Trains to the end: the exit status, or None if the run collapsed and went back to an earlier checkpoint."""
    try:
        reason = _train(config, plan, state, latents, source, recorder, stop, world)
        return _finish(state, recorder, reason, world)
    except Collapsed as collapse:
        recorder.checkpointer.wait()
        roll_back(config, recorder.folder, recorder.checkpointer, collapse, recorder.trackers, world)
        recorder.trackers.close("rolled back", state.watch.shown)
        return None


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
    at_start = state.images_seen == 0
    stages = recorder.throughput.stages
    with stages.during("samples"):
        recorder.real_images(source, plan.batches, config.sample.num_images, save=at_start)
        if at_start:
            recorder.sample(state)
    if config.train.on_collapse == "rollback" and recorder.checkpointer.newest_images_seen() is None:
        with stages.during("checkpoints"):
            recorder.checkpoint(state, wait=True)  # for a collapse that begins with the first step
    update = open_update(config, state, plan.precision, plan.batches, world)

    def note_hang(reason: str) -> None:
        if world.is_main:
            recorder.folder.write_status("failed", state.images_seen, reason, state.watch.lasting, stages.seconds())

    heartbeat = Heartbeat(world, config.run.hang_timeout_seconds, note_hang)
    profile = StepProfile(recorder.folder.profile, config.track.profile_steps, world)
    stages.enter("train")
    try:
        reason = train(
            state,
            update,
            endless_batches(source, plan.batches, state.images_seen),
            latents,
            recorder,
            Cadence(
                Every(config.track.every_images),
                Every(config.sample.every_images),
                Every(config.checkpoint.every_images),
                Every(config.evaluate.every_images),
            ),
            plan.total_images,
            stop,
            heartbeat,
            profile,
            world,
        )
    except RunFailed:
        _close(heartbeat, profile, update)  # this process goes on: with a rollback, or with the report
        raise
    _close(heartbeat, profile, update)
    return reason


def _close(heartbeat: Heartbeat, profile: StepProfile, update: EagerUpdate | CapturedUpdate) -> None:
    heartbeat.stop()
    profile.close()
    update.close()


def _finish(state: TrainState, recorder: RunRecorder, reason: str | None, world: World) -> int:
    """The last row, grid and checkpoint, and the status that people and scripts look at."""
    stages = recorder.throughput.stages
    if reason is None:
        if world.any(bool(state.window.sums[-1] > 0)):
            recorder.row(state)
        with stages.during("samples"):
            recorder.sample(state)
    with stages.during("checkpoints"):
        saved = recorder.checkpoint(state, wait=True)
    status: Literal["done", "preempted"] = "done" if reason is None else "preempted"
    lasting = state.watch.lasting  # with what the last row and grid showed
    if not world.is_main:
        recorder.trackers.close(status, state.watch.shown)
        return 0
    if not saved:
        lost = "the last checkpoint could not be written"
        recorder.folder.try_write_status("failed", state.images_seen, lost, lasting, stages.seconds())
        raise RunFailed(f"{recorder.folder.path}: the last checkpoint could not be written; make room and start again")
    note_event(recorder.folder.events, state.images_seen, status, f"stopped by {reason}" if reason else "the end")
    # Before a tracker may wait for a network.
    recorder.folder.try_write_status(status, state.images_seen, reason or "", lasting, stages.seconds())
    with stages.during("trackers"):
        recorder.trackers.close(status, state.watch.shown)
    how = f"stopped by {reason}" if reason else "done"
    log.info("%s at %d images: %s", how, state.images_seen, recorder.folder.path)
    with stages.during("report"):
        recorder.show_results(state)
    recorder.folder.try_write_status(status, state.images_seen, reason or "", lasting, stages.seconds())
    log.info("%s", stages)
    say_what_lasts(lasting, "stopped" if reason else "ended", recorder.folder)
    return 0
