"""What the options of the commands have in common."""

from __future__ import annotations

import argparse
import os
import re
from functools import partial
from pathlib import Path

from data_prep.packing.engines import Engine, in_processes
from data_prep.packing.ray_engine import in_ray
from dcgan_dist.base.errors import UserError


def positive(text: str) -> int:
    """An option's value that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, not {text!r}")
    return int(text)


def seed(text: str) -> int:
    """The value of --seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number of at least 0 is expected, not {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """An option's value from 0 to below 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"a number from 0 to below 1 is expected, not {text!r}")
    return share


def colour(text: str) -> tuple[int, int, int]:
    """A colour as in HTML, as red, green and blue from 0 to 255."""
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        raise argparse.ArgumentTypeError(f"a colour such as ffffff or 808080 is expected, not {text!r}")
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def least_size(text: str) -> int:
    """The value of --filter, in pixels."""
    name, _, value = text.partition("=")
    if name != "min_size" or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"min_size=PIXELS is expected, as in min_size=64, not {text!r}")
    return int(value)


def usable_cores() -> int:
    """Cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def add_engine(parser: argparse.ArgumentParser, workers: int) -> None:
    """Adds the options that say what packs the shards; `workers` is the default number."""
    ways = "processes: of this machine; ray: tasks of Ray, on this machine or, with --ray-address, on a cluster"
    parser.add_argument("--workers", type=positive, default=workers, metavar="N", help=f"at a time; default: {workers}")
    parser.add_argument("--engine", choices=("processes", "ray"), default="processes", help=ways)
    where = "HOST:PORT of a Ray cluster whose nodes share --source and --out, or auto; its CPUs count, not --workers"
    parser.add_argument("--ray-address", metavar="ADDRESS", help=where)


def settle_engine(arguments: argparse.Namespace) -> None:
    """Makes paths mean the same on every node. Raises UserError for options that do not go together."""
    if arguments.engine == "ray":
        arguments.source, arguments.out = _absolute(arguments.source), _absolute(arguments.out)
    elif arguments.ray_address is not None:
        raise UserError(f"--ray-address {arguments.ray_address}: is for --engine ray; add that, or leave it out")


def _absolute(place: Path | str) -> Path | str:
    """A path wherever a node stands; a URL as it is."""
    return place.absolute() if isinstance(place, Path) else place


def engine(arguments: argparse.Namespace, shards: int) -> Engine:
    """What packs the shards, of which there are so many."""
    workers = min(arguments.workers, shards)
    if arguments.engine == "processes":
        return partial(in_processes, workers=workers)
    return partial(in_ray, workers=workers, address=arguments.ray_address, folder=arguments.out)
