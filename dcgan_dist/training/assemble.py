"""Puts the parts of a run together and takes it from the first check to the last checkpoint."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial

from dcgan_dist.base.errors import Interrupted, RunFailed, UserError, in_one_line
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.command_line.train_config import write_yaml
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.loader import Data, PixelSource, open_data, open_source
from dcgan_dist.data.shard_format import ShardError
from dcgan_dist.data.step_images import step_images
from dcgan_dist.data.supply import Supply, SupplyLost
from dcgan_dist.distributed.heartbeat import Heartbeat
from dcgan_dist.distributed.leaving import (
    is_lost_connection,
    is_out_of_memory,
    leave_after_the_culprit,
    leave_out_of_memory,
)
from dcgan_dist.distributed.workforce import keep_freed_memory, take_share_of_cores
from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.run.folder import RunFolder, forget_warnings_after
from dcgan_dist.run.stop import StopRequest
from dcgan_dist.tracking.figures import StageClock, StepProfile, Throughput
from dcgan_dist.tracking.journal import Journal
from dcgan_dist.tracking.open_trackers import describe_environment, open_trackers
from dcgan_dist.tracking.tracker import ConsoleTracker, JsonlTracker, Trackers, set_up_logging
from dcgan_dist.training.by_position import Rates, StepInputs, StepNumbers
from dcgan_dist.training.ending import finish, report, roll_back
from dcgan_dist.training.engine import choose_kernels, open_update
from dcgan_dist.training.loop import Cadence, Training, train
from dcgan_dist.training.plan import Plan, Run, announce, assert_equal_on_all_ranks, check_ranks, restore, settle
from dcgan_dist.training.recorder import Checkpoints, Recorder, RunWatch
from dcgan_dist.training.resume import find_checkpoint
from dcgan_dist.training.samples import AverageStatistics, FixedLatentSampler, Samples
from dcgan_dist.training.scoring import check_scores, open_scores
from dcgan_dist.training.stability import Collapsed, StabilityWatch, lasting_signs
from dcgan_dist.training.state import TrainState

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
    most_steps = MOST_STEPS_BETWEEN_STOP_CHECKS[world.device.type]
    stop = StopRequest(folder.stop_file, config.run.time_limit_minutes, most_steps)
    stop.listen()
    start = Run(config, folder, world, stop, stages)
    try:
        while (status := _start(start)) is None:  # once, and once more after each rollback
            stages.enter("start")
            start = replace(start, config=replace(config, run=replace(config.run, resume="auto")))
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


def _start(run: Run) -> int | None:
    """Trains from the newest checkpoint to the end. Returns the exit status, or None after a rollback."""
    config, world, keep = run.config, run.world, run.config.checkpoint
    assert_equal_on_all_ranks(world, {f"the settings of {name}": section for name, section in config.as_dict().items()})
    cores, patience = take_share_of_cores(world), config.run.hang_timeout_seconds
    data = open_data(config.data, world, cores, patience, run.stop.raise_if_asked_before_the_first_step)
    checkpointer = Checkpointer(
        run.folder.checkpoints, keep.keep_last, keep.keep_every_images, world, (run.folder.metrics, run.folder.scores)
    )
    plan = settle(config, data.shards, find_checkpoint(config.run, checkpointer), world)
    journal = Journal(run.folder, run.stages, world.is_main)
    if plan.saved and plan.saved.images_seen >= plan.total_images:
        return _say_finished(journal, plan.saved.images_seen, lasting_signs(plan.saved.watch))
    state = restore(config, plan, world)
    numbers = plan.numbers(config, world, state.watch.rollbacks)
    check_ranks(plan, state, numbers, world)
    world.together(check_scores, config.evaluate)
    world.on_main(run.folder.create, write_yaml(config))
    world.on_main(run.folder.write_status, "running", state.images_seen, "", state.watch.lasting)
    announce(run, plan, state.images_seen)
    try:
        return _open_and_train(run, plan, data, checkpointer, journal, state, numbers)
    except Interrupted as asked:
        log.info("stopped by %s before the first step: %s", asked, run.folder.path)
        text = f"stopped by {asked} before the first step"
        journal.ended("preempted", state.images_seen, str(asked), state.watch.lasting, text)
        return 0
    except BaseException as error:
        if isinstance(error, ShardError) and not world.is_main:
            log.error("%s", error)  # this rank's alone: a damaged image that turned up while streaming
        if world.is_main:
            checkpointer.wait()
            reason = in_one_line(f"{type(error).__name__}: {error}")
            journal.ended("failed", state.images_seen, reason, state.watch.lasting)
            if isinstance(error, RunFailed):
                report(run)
        raise


def _say_finished(journal: Journal, images_seen: int, lasting: dict[str, str]) -> int:
    """Logs that the run has already finished; returns the exit status."""
    log.info(
        "%s is finished: %d images were seen; raise --train.total_images or --train.epochs to go on, "
        "or choose another --run.dir",
        journal.folder.path,
        images_seen,
    )
    journal.finished_before(images_seen, lasting)
    return 0


def _open_and_train(
    run: Run,
    plan: Plan,
    data: Data,
    checkpointer: Checkpointer,
    journal: Journal,
    state: TrainState,
    numbers: StepNumbers,
) -> int | None:
    """Opens trackers, data and samples, then trains. Returns the exit status, or None after a rollback."""
    config, world = run.config, run.world
    console = ConsoleTracker(plan.total_images, state.images_seen) if world.is_main else None
    ids = _tell_trackers(run, plan, journal, console)
    journal.started(state.images_seen, world.size, world.device.type)
    with run.stages.during("decode"):
        source = _fill(run, data, partial(journal.pixels_found, state.images_seen))
    scoring = open_scores(config, plan, source, run.folder.scores, state.images_seen, world)
    seed, latent_size = config.run.seed, config.model.latent_size
    statistics = AverageStatistics(seed, latent_size, world, plan.typical)
    sampler = FixedLatentSampler(
        seed, config.sample.num_images, latent_size, config.data.image_size, world, plan.classes
    )
    samples = Samples(sampler, statistics, run.folder, journal.trackers)
    with run.stages.during("samples"):
        save = not (state.images_seen and run.folder.real_grid.exists())
        real_spread = samples.real(source, plan.batches, save)
    watch = StabilityWatch(plan.total_images, plan.batches.global_batch, config.data.image_size, config.train.loss)
    recorder = Recorder(
        run, plan, journal, samples, statistics, scoring,
        RunWatch(watch, config.train.on_collapse, journal, real_spread),
        Checkpoints(run, plan, checkpointer, journal, ids),
    )  # fmt: skip
    try:
        images = step_images(source, plan.batches, state.images_seen)
        optimizers = (state.generator_optimizer, state.discriminator_optimizer)
        rates = Rates(optimizers, plan.total_images, config.optim.decay_last)
        inputs = StepInputs(images, numbers, rates, state.images_seen)
        reason = _train(run, plan, inputs, data.supply(source, world), recorder, state, console)
        return finish(run, recorder, state, reason)
    except SupplyLost:
        recorder.checkpoint(state, wait=True)
        raise
    except Collapsed as collapse:
        checkpointer.wait()
        roll_back(run, recorder, collapse)
        journal.trackers.close("rolled back", state.watch.shown)
        return None


def _tell_trackers(run: Run, plan: Plan, journal: Journal, console: ConsoleTracker | None) -> dict[str, str]:
    """Opens the trackers for the journal; the ids under which they know the run. UserError on every rank or on none."""
    world, images_seen = run.world, plan.saved.images_seen if plan.saved else 0
    environment = describe_environment(
        world, plan.manifest, plan.precision.name, plan.batches.global_batch, plan.total_images
    )
    world.on_main(run.folder.write_environment, environment)
    world.on_main(forget_warnings_after, run.folder.events, images_seen)
    trackers, ids = open_trackers(run.config, run.folder, environment, plan.saved, world)
    at_once = [tracker for tracker in trackers if isinstance(tracker, JsonlTracker)]  # a checkpoint relies on its rows
    slow = [tracker for tracker in trackers if tracker not in at_once]
    journal.tell(Trackers([*at_once, *([console] if console else [])], slow))
    return ids


def _fill(run: Run, data: Data, tell: Callable[[str], None]) -> PixelSource:
    """Checks every byte of the shards, each rank its part, and decodes them if they are cached and not kept.

    Raises Interrupted, on every rank, if one is asked to stop meanwhile.
    """
    world = run.world
    # Each node may have a copy of its own.
    world.together(data.shards.verify, world.local_rank, world.local_size, before_each=run.stop.raise_if_asked)
    with progress_bar("decoding", len(data.shards) // world.size, visible=world.is_main) as show:

        def advance(images: int) -> None:
            run.stop.raise_if_asked()
            show(images)

        return open_source(run.config.data, data.shards, data.decode, world, advance, tell)


def _train(
    run: Run,
    plan: Plan,
    inputs: StepInputs,
    supply: Supply,
    recorder: Recorder,
    state: TrainState,
    console: ConsoleTracker | None,
) -> str | None:
    """Draws the first grid and trains to the last step. Returns why it stopped early, or None."""
    config, world, journal = run.config, run.world, recorder.journal
    if state.images_seen == 0:
        with run.stages.during("samples"):
            recorder.sample(state)
    checkpointer = recorder.checkpoints.checkpointer
    if config.train.on_collapse == "rollback" and checkpointer.newest_images_seen() is None:
        with run.stages.during("checkpoints"):
            recorder.checkpoint(state, wait=True)  # for a collapse that begins with the first step
    training = Training(
        state=state,
        inputs=inputs,
        update=open_update(config, state, plan.precision, inputs, plan.batches, world),
        supply=supply,
        recorder=recorder,
        cadence=Cadence.of(config),
        throughput=Throughput(world.device, world.size, run.stages),
        heartbeat=Heartbeat(
            world,
            config.run.hang_timeout_seconds,
            lambda reason: journal.hung(state.images_seen, reason, state.watch.lasting),
        ),
        profile=StepProfile(run.folder.profile, config.track.profile_steps, world),
        advance=console.advance if console else lambda images: None,
    )
    run.stages.enter("train")
    try:
        reason = train(run, plan, training)
    except RunFailed:
        training.close()  # this process goes on: with a rollback, or with the report
        recorder.samples.wait_for_those_so_far()()
        raise
    training.close()
    if reason is None and world.any(bool(state.window.sums[-1] > 0)):
        recorder.row(state, training.throughput)
    return reason
