"""The same work as Ray tasks, on this machine or on a cluster whose nodes share a file system."""

from __future__ import annotations

import hashlib
import importlib.metadata
import itertools
import platform
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from data_prep.packing.ray_connection import connected
from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.files import temporary_name
from dcgan_dist.data.shard_format import MANIFEST_NAME

JOBS_FOR_A_CPU = 2  # that it has or that wait for it; more would only take memory
MOST_TRIES = 6  # of a job whose nodes or workers die: one that kills every worker must not go on for ever
LOOK_SECONDS = 1.0  # between two looks at the nodes
REST_SECONDS = 20.0  # that a node gets no jobs after a worker died there: the node may be about to be found dead
NO_CPU_SECONDS = 300.0  # that a cluster without any CPU is waited for: nodes may come back
AGAIN = "give the same command again: what is finished is kept"

Job = TypeVar("Job")
Result = TypeVar("Result")


class Driver(NamedTuple):
    """The command, as far as a node must see the same."""

    packages: dict[str, str]
    """Versions of what the bytes of a shard depend on."""
    token: Path
    """A file in the folder of shards."""


def in_ray(
    function: Callable[[Job], Result], jobs: Iterable[Job], workers: int, address: str | None, folder: Path
) -> Iterator[Result]:
    """What `function` makes of each job, as they end; a job whose node dies runs again on another.

    Without an address Ray runs on this machine with `workers` CPUs, and ends when this does; else the CPUs of the
    cluster count. `folder` is what all nodes write to. The first exception of a job is raised here and ends all others.
    UserError if Ray, the cluster or a node cannot be used.
    """
    token = temporary_name(folder.absolute() / MANIFEST_NAME)  # a name that the next preparation would remove
    try:
        with connected(workers, address) as ray:
            token.touch()
            nodes = Nodes(ray, Driver(packages(), token), function, jobs)
            try:
                yield from nodes.run()
            finally:
                nodes.stop()
    finally:
        token.unlink(missing_ok=True)


@dataclass
class Node:
    """What is known of one node."""

    cpus: float
    resting_until: float = 0.0


@dataclass
class Placed(Generic[Job]):
    """A job and the node that it was given to."""

    job: Job
    node: str = ""
    tries: int = 0


class Nodes(Generic[Job, Result]):
    """The nodes of a cluster and the jobs of each; those of a node that is gone are given to others.

    Left to itself, Ray waits for the connection to a dead node to end, which after a power cut takes minutes.
    """

    def __init__(self, ray: Any, driver: Driver, function: Callable[[Job], Result], jobs: Iterable[Job]) -> None:
        self._ray = ray
        self._task = ray.remote(num_cpus=1, max_retries=0)(on_a_node)
        self._function, self._driver = function, driver
        self._jobs = iter(jobs)
        self._waiting: deque[Placed[Job]] = deque()
        self._nodes: dict[str, Node] = {}
        self._running: dict[Any, Placed[Job]] = {}
        self._looked = self._last_cpu = time.monotonic()

    def run(self) -> Iterator[Result]:
        """The results of all jobs. Raises the first exception of a job, and UserError."""
        self._look()
        while self._waits() or self._running:
            if time.monotonic() > self._looked + LOOK_SECONDS:
                self._look()
            while self._waits() and (node := self._freest()):
                self._start(self._waiting.popleft(), node)
            if not self._running:
                time.sleep(LOOK_SECONDS)
                continue
            done, _ = self._ray.wait(list(self._running), timeout=LOOK_SECONDS)
            for task in done:
                placed = self._running.pop(task)
                try:
                    yield self._ray.get(task)
                except self._ray.exceptions.RayTaskError as error:
                    raise explained(error) from None
                except self._ray.exceptions.RayError as error:
                    self._put_back(placed, error)
                    self._looked = 0.0  # at once: its node may be gone

    def _waits(self) -> bool:
        """Whether there is a job to be started."""
        if not self._waiting:
            self._waiting += map(Placed, itertools.islice(self._jobs, 1))
        return bool(self._waiting)

    def stop(self) -> None:
        """Ends what still runs, which removes what it has half written."""
        for task in self._running:
            self._ray.cancel(task)
        if self._running:
            self._ray.wait(list(self._running), num_returns=len(self._running), timeout=LOOK_SECONDS)

    def _start(self, placed: Placed[Job], node: str) -> None:
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        there = NodeAffinitySchedulingStrategy(node, soft=False)
        task = self._task.options(scheduling_strategy=there).remote(self._function, placed.job, self._driver)
        self._running[task] = Placed(placed.job, node, placed.tries + 1)

    def _freest(self) -> str | None:
        """The node with the fewest jobs for a CPU, if it can take one more."""
        busy = dict.fromkeys(self._nodes, 0)
        for placed in self._running.values():
            busy[placed.node] += 1
        now = time.monotonic()
        free = {
            name: busy[name] / node.cpus
            for name, node in self._nodes.items()
            if node.cpus and node.resting_until < now and busy[name] < JOBS_FOR_A_CPU * node.cpus
        }
        return min(free, key=free.__getitem__) if free else None

    def _look(self) -> None:
        """Takes note of nodes that have come or gone. Raises UserError if there has been no CPU for long."""
        self._looked = time.monotonic()
        alive = {node["NodeID"]: node["Resources"].get("CPU", 0.0) for node in self._ray.nodes() if node["Alive"]}
        gone = self._nodes.keys() - alive.keys()
        if alive.keys() != self._nodes.keys():
            lost = f"lost {len(gone)}, whose shards are packed again; " if gone else ""
            self._nodes = {name: self._nodes.get(name) or Node(cpus) for name, cpus in alive.items()}
            nodes = f"{len(alive)} node{'s' * (len(alive) != 1)}"
            print(f"Ray: {lost}{sum(alive.values()):.0f} CPUs on {nodes}", file=sys.stderr, flush=True)
        if any(alive.values()):
            self._last_cpu = self._looked
        elif self._looked > self._last_cpu + NO_CPU_SECONDS:
            raise UserError(f"the Ray cluster has had no CPU for {NO_CPU_SECONDS:.0f} s; add nodes, then {AGAIN}")
        for task in [task for task, placed in self._running.items() if placed.node in gone]:
            self._waiting.append(self._running.pop(task))

    def _put_back(self, placed: Placed[Job], error: Exception) -> None:
        """Lets a job whose worker died run again. Raises UserError if that has happened too often."""
        if placed.node in self._nodes:
            self._nodes[placed.node].resting_until = time.monotonic() + REST_SECONDS
        if placed.tries >= MOST_TRIES:
            kind = type(error).__name__
            raise UserError(f"packing a shard has ended {MOST_TRIES} workers ({kind}; out of memory?); {AGAIN}")
        self._waiting.append(placed)


def explained(error: Any) -> Exception:
    """What a job raised, or one line about the module that its node lacks."""
    if isinstance(error.cause, (UserError, OSError)):
        return error.cause
    if "No module named" not in (told := in_one_line(error)):
        return error
    missing = told.rpartition("No module named")[2].split()[0].strip("'\".,)")
    return UserError(
        f"a node of the Ray cluster has no module {missing}: install dcgan_dist with all that it needs, in this "
        f"version, where its `ray start` runs; then {AGAIN}"
    )


def on_a_node(function: Callable[[Job], Result], job: Job, driver: Driver) -> Result:
    """A job on whichever node it came to. Raises UserError where the node would not write the same bytes, OSError."""
    node = f"the Ray node {platform.node()}"
    if not driver.token.exists():
        raise UserError(
            f"{driver.token.parent}: is not the same folder on {node}; --out and --source, or for URLs XDG_CACHE_HOME, "
            "must be on a file system that all nodes share"
        )
    for package, version in driver.packages.items():
        if (there := packages()[package]) != version:
            raise UserError(f"{node} has {package} {there} and this one {version}; install the same, or shards differ")
    try:
        return function(job)
    except OSError as error:
        raise OSError(error.errno, f"{error.strerror}, on {node}", error.filename) from None


@cache
def packages() -> dict[str, str]:
    """The versions that the bytes of a shard depend on; of our own code a checksum, as a checkout has no version."""
    code = hashlib.sha256()
    for path in sorted(Path(__file__).parents[1].rglob("*.py")):
        code.update(path.read_bytes())
    return {"data_prep": code.hexdigest()[:12], "Pillow": importlib.metadata.version("Pillow")}
