"""Contenders in processes of their own that take turns, so that all see the same drifts of the machine's speed."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Setting:
    """What a contender is to train on."""

    jpegs: str
    shards: str
    batch: int
    threads: int
    device: str
    precision: str


class Contenders:
    """Processes that wait for orders; each builds its networks when it starts."""

    def __init__(self, names: list[str], setting: Setting) -> None:
        context = multiprocessing.get_context("spawn")
        self._connections: dict[str, Connection] = {}
        for name in names:
            here, there = context.Pipe()
            context.Process(target=_serve, args=(there, name, setting)).start()
            self._connections[name] = here

    def each(self, order: str) -> dict[str, Any]:
        """One contender after the other carries out an order; what each answered."""
        answers = {}
        for name, connection in self._connections.items():
            connection.send(order)
            answer = connection.recv()
            if isinstance(answer, Exception):
                raise answer
            answers[name] = answer
        return answers

    def close(self) -> None:
        """Ends the processes."""
        for connection in self._connections.values():
            connection.send("end")


def _serve(connection: Connection, name: str, setting: Setting) -> None:
    import torch

    torch.set_num_threads(setting.threads)
    contender = build(name, setting)
    orders: dict[str, Callable[[Any, Setting], Any]] = {
        "step": _step,
        "open": _open,
        "epoch": _epoch,
        "anatomy": _anatomy,
    }
    while (order := connection.recv()) != "end":
        try:
            connection.send(orders[order](contender, setting))
        except Exception as error:
            connection.send(error)


def build(name: str, setting: Setting) -> Any:
    """A contender by its name: tutorial, examples, ours."""
    import torch

    from benchmarks.ours import Ours
    from benchmarks.plain_ways import Examples, Tutorial
    from dcgan_dist.config import TrainSection
    from dcgan_dist.distributed.world import World

    device = torch.device(setting.device)
    if name == "ours":
        train = TrainSection(precision=setting.precision)  # type: ignore[arg-type]
        return Ours(Path(setting.shards), setting.batch, World(0, 1, 0, 1, device), train, setting.threads)
    return {"tutorial": Tutorial, "examples": Examples}[name](Path(setting.jpegs), setting.batch, device)


def _wait(setting: Setting) -> None:
    import torch

    if setting.device.startswith("cuda"):
        torch.cuda.synchronize()


TURN = 6.0  # seconds on a CPU, which long steps alone may exceed


def _step(contender: Any, setting: Setting) -> float:
    """Seconds of a step on a batch that is there, the mean over a turn of several in a row, as in training."""
    on_gpu = setting.device.startswith("cuda")
    _wait(setting)
    start, steps = time.perf_counter(), 0
    while steps < 50 if on_gpu else time.perf_counter() - start < TURN:
        contender.step()
        steps += 1
    _wait(setting)
    return (time.perf_counter() - start) / steps


def _open(contender: Any, setting: Setting) -> float:
    """Seconds until the first epoch can begin."""
    start = time.perf_counter()
    contender.open()
    _wait(setting)
    return time.perf_counter() - start


def _epoch(contender: Any, setting: Setting) -> tuple[float, float, int]:
    """Seconds of an epoch over the files, how many of them went by until a batch was there, and images."""
    _wait(setting)
    contender.waiting.seconds = 0.0
    start = time.perf_counter()
    images = sum(contender.epoch())
    _wait(setting)
    return time.perf_counter() - start, contender.waiting.seconds, images


def _anatomy(contender: Any, setting: Setting) -> dict[str, Any]:
    from benchmarks.anatomy import look_into

    _wait(setting)
    return look_into(contender.eager_step, setting.device)
