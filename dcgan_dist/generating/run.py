"""From the command line's options to the finished file, on every rank."""

from __future__ import annotations

import argparse
from pathlib import Path

from dcgan_dist.base.errors import UserError
from dcgan_dist.data.classes import Classes
from dcgan_dist.data.loader import Data
from dcgan_dist.distributed.leaving import is_lost_connection, leave_after_the_culprit
from dcgan_dist.distributed.workforce import Workforce, keep_freed_memory, take_share_of_cores
from dcgan_dist.distributed.world import World
from dcgan_dist.generating.arithmetic import groups_with_attribute, parse_groups, save_arithmetic
from dcgan_dist.generating.images import save_images, save_walks
from dcgan_dist.generating.latents import LatentsAt, independent, with_classes
from dcgan_dist.generating.neighbours import save_neighbours
from dcgan_dist.generating.outputs import prepare_place
from dcgan_dist.generating.studio import Studio
from dcgan_dist.run.trained import Trained, load_on_every_rank


def run(arguments: argparse.Namespace) -> int:
    """Makes what `arguments` ask for; the exit status. Raises UserError, the same on every rank."""
    world = World.connect()
    keep_freed_memory()
    try:
        made = _run(arguments, world)
    except UserError:
        world.close()
        raise
    except Exception as error:
        if not is_lost_connection(error):
            raise
        leave_after_the_culprit(world, error)
    if world.is_main:
        print(f"{arguments.out}: {made}")
    world.close()
    return 0


def _run(arguments: argparse.Namespace, world: World) -> str:
    """Makes what `arguments` ask for and returns a description of it."""
    cores = take_share_of_cores(world)
    studio = _open_studio(arguments.checkpoint, arguments.ema, world, cores)
    prepare_place(arguments.out, world)
    out, count, seed = arguments.out, arguments.num_images, arguments.seed
    latents = independent(seed, studio.latent_size, arguments.truncation)
    if classes := _classes(studio.trained, arguments.shown):
        latents = with_classes(latents, classes)
    if arguments.interpolate:
        return save_walks(studio, latents, count, arguments.steps, out)
    if arguments.arithmetic_indices:
        groups = parse_groups(arguments.arithmetic_indices)
        names = [", ".join(map(str, group)) for group in groups]
        save_arithmetic(studio, latents, [groups], (names[0], names[1], names[2]), seed, out)
        return "each group's images above the image of its mean latent, and their sum"
    if not arguments.arithmetic and not arguments.neighbours:
        return save_images(studio, latents, count, out)
    data = studio.training_images(arguments.shards, cores)
    if arguments.neighbours:
        save_neighbours(studio, data, latents, count, out)
        return "drawn images and the training images nearest to them"
    return _attribute(studio, data, latents, arguments)


def _classes(trained: Trained, shown: str | None) -> Classes | None:
    """What images are to show: what training images do, but for what `--class` asks for."""
    if shown is None:
        return trained.classes
    wanted = trained.wanted(shown)
    return trained.classes.only(wanted) if trained.classes else None


def _attribute(studio: Studio, data: Data, latents: LatentsAt, arguments: argparse.Namespace) -> str:
    name = arguments.arithmetic
    rows = groups_with_attribute(studio, data, name, latents, arguments.seed, arguments.num_images)
    captions = (name, "without", "without")
    save_arithmetic(studio, latents, rows, captions, arguments.seed, arguments.out)
    return f"{len(rows)} of the cases: images of three groups above the image of their mean latent, and the sum"


def _open_studio(checkpoint: Path, ema: bool | None, world: World, cores: int) -> Studio:
    """The checkpoint's networks on every rank, and what they are; UserError, on every rank, if they cannot be had."""
    trained = load_on_every_rank(checkpoint, world, ema)
    if world.is_main:
        network = "the generator's average" if trained.averaged else "the generator"
        print(f"{trained.path}: {network} after {trained.images_seen} images")
    return Studio(trained, Workforce.of(world, cores))
