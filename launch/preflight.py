"""Says whether this node and this job would work, before the allocation burns.

    python -m launch.preflight [--quick] [--json] [--section.field VALUE ...]
    torchrun --nproc_per_node 8 -m launch.preflight [--section.field VALUE ...]

A line for each question and node: versions, GPUs, shards, run folder, disk, W&B; and unless --quick is given, what
ranks find out: whether they reach each other and how fast, how fast they decode and train, how long the run will take.
Exit status 0 if a run would start, 1 if it would fail, 2 if the settings are wrong.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.leaving import exit_as_rank
from launch.checks import (
    Check,
    check_cpus,
    check_gpus,
    check_shards,
    check_time_limit,
    check_versions,
    check_wandb,
    node_name,
)
from launch.disk import check_run_folder

if TYPE_CHECKING:
    from dcgan_dist.distributed.world import World

FLAGS = ("--quick", "--json", "--help", "-h")
COLOURS = {"ok": "green", "warn": "yellow", "fail": "red"}
EQUAL_EVERYWHERE = ("versions", "shards")


def answers(name: str, ask: Callable[[], Check | list[Check]]) -> list[Check]:
    """What `ask` finds; that it went wrong is an answer too, and other ranks may wait for one."""
    try:
        found = ask()
    except UserError as error:
        return [Check(name, "fail", str(error))]
    except Exception as error:
        return [Check(name, "fail", f"{type(error).__name__}: {_one_line(error)}")]
    return found if isinstance(found, list) else [found]


def checks_of_node(config: TrainConfig, ranks: int) -> list[Check]:
    """What one process can find out about its node."""
    return [
        *answers("versions", check_versions),
        *answers("CPUs", lambda: check_cpus(ranks)),
        *answers("GPUs", lambda: check_gpus(ranks)),
        *answers("shards", lambda: check_shards(config.data)),
        *answers("run folder", lambda: check_run_folder(config)),
        *answers("W&B", lambda: check_wandb(config.track)),
    ]


def checks_of_ranks(config: TrainConfig, world: World) -> list[Check]:
    """What takes all ranks. A rank that cannot go on says so in a check, and the others stop where it does."""
    from dcgan_dist.data.loader import open_shards
    from dcgan_dist.training.plan import settle
    from launch.probes import check_all_reduce, check_decoding, check_memory, measure_training

    checks = [check_all_reduce(world), *answers("decoding", lambda: check_decoding(config.data, world))]
    if world.any(failed(checks)):
        return checks
    manifest = read_manifest(config.data.shards)
    if len(set(world.gather_objects(manifest.samples))) > 1:
        return checks
    try:
        plan = settle(config, open_shards(config.data, manifest, world), None, world)
    except UserError as error:  # on every rank
        return [*checks, Check("training", "fail", str(error))]
    memory = answers("training", lambda: check_memory(config, plan, world))
    if world.any(failed(memory)):
        return [*checks, *(check for check in memory if check.status == "fail")]
    training, speed = measure_training(config, plan, world)
    return [*checks, training, check_time_limit(config.run, plan.total_images, speed)]


def compare_nodes(checks: list[Check]) -> list[Check]:
    """A failure for each thing that must be the same on all nodes and is not."""
    different = []
    for name in EQUAL_EVERYWHERE:
        found = {check.found for check in checks if check.name == name and check.status == "ok"}
        if len(found) > 1:
            advice = "give all nodes the same environment" if name == "versions" else "copy or mount the same shards"
            different.append(Check(name, "fail", f"not the same on all nodes: {' | '.join(sorted(found))}", advice))
    return different


def gather(own: list[Check], world: World) -> list[Check]:
    """All nodes' checks, question by question; nodes that answer the same share a line."""
    everybody = world.gather_objects([replace(check, node=node_name()) for check in own])
    checks = [check for rank in everybody for check in rank]
    order = list(dict.fromkeys(check.name for check in checks))
    nodes = {check.node for check in checks}
    answers: dict[Check, set[str]] = {}
    for check in sorted(checks, key=lambda check: order.index(check.name)):
        answers.setdefault(replace(check, node=""), set()).add(check.node)
    return [
        replace(check, node=f"all {len(nodes)}" if where == nodes and len(nodes) > 1 else ", ".join(sorted(where)))
        for check, where in answers.items()
    ]


def of_this_rank(checks: list[Check], world: World) -> list[Check]:
    """Its part of the table: what goes wrong, and what need not be said by every rank."""
    once = ("all-reduce", "training", "time")
    speaks = {"": world.local_rank == 0, **dict.fromkeys(once, world.is_main)}
    return [check for check in checks if check.status != "ok" or speaks.get(check.name, speaks[""])]


def show(checks: list[Check], as_json: bool) -> None:
    """Prints a table, or JSON for programs."""
    if as_json:
        print(json.dumps({"ok": not failed(checks), "checks": [asdict(check) for check in checks]}, indent=2))
        return
    table = Table("check", "node", "", "found", "what to do")
    for check in checks:
        table.add_row(
            check.name,
            check.node,
            f"[{COLOURS[check.status]}]{check.status}[/]",
            _plain(check.found),
            _plain(check.advice),
        )
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def _plain(text: str) -> str:
    return text.replace("[", r"\[")


def failed(checks: list[Check]) -> bool:
    """Whether a run would."""
    return any(check.status == "fail" for check in checks)


def _alone(config: TrainConfig) -> list[Check]:
    ranks = int(os.environ.get("RANKS_PER_NODE", "1"))
    checks = [*checks_of_node(config, ranks), check_time_limit(config.run, None, None)]
    return [replace(check, node=node_name()) for check in checks]


def _with_ranks(config: TrainConfig) -> tuple[list[Check], bool]:
    """The checks, and whether this rank is the one to show them."""
    from launch.probes import CONNECT_SECONDS, connect

    rank, size = os.environ.get("RANK", "0"), os.environ.get("WORLD_SIZE", "1")
    try:
        world = connect()
    except UserError as error:
        return [Check("connection", "fail", str(error), node=node_name())], True
    except Exception as error:
        found = f"rank {rank} of {size} did not reach the others within {CONNECT_SECONDS} seconds: {_one_line(error)}"
        where = f"{os.environ.get('MASTER_ADDR')}:{os.environ.get('MASTER_PORT')}"
        advice = f"start all ranks; open {where}; GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the network to use"
        return [Check("connection", "fail", found, advice, node_name())], True
    own = checks_of_node(config, world.local_size) if world.local_rank == 0 else []
    try:
        checks = gather([*own, *of_this_rank(checks_of_ranks(config, world), world)], world)
    except RuntimeError as error:  # of a collective, which the others may have left
        found = f"rank {rank} of {size} cannot go on: {_one_line(error)}"
        return [Check("connection", "fail", found, "see what the first rank to end says", node_name())], True
    checks += compare_nodes(checks)
    world.close()
    return checks, world.is_main


def _one_line(error: Exception) -> str:
    return in_one_line(error, 300)


def main() -> int:
    """Checks and shows; the exit status."""
    flags = [word for word in sys.argv[1:] if word in FLAGS]
    if "--help" in flags or "-h" in flags:
        print(__doc__)
        return 0
    config = parse_arguments([word for word in sys.argv[1:] if word not in FLAGS])
    checks, shows = (_alone(config), True) if "--quick" in flags else _with_ranks(config)
    if shows:
        show(checks, as_json="--json" in flags)
        for check in checks:
            if check.status == "fail":
                print(f"error: {check.name} on {check.node or 'the nodes'}: {check.found}", file=sys.stderr)
    return 1 if failed(checks) else 0


if __name__ == "__main__":
    exit_as_rank(main)
