"""The ranks of a run: this rank's place among them, and the few operations they perform together."""

from __future__ import annotations

import contextlib
import importlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, ParamSpec, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor

from dcgan_dist.base.errors import Interrupted, UserError
from dcgan_dist.base.waiting import told_if_long
from dcgan_dist.distributed.meeting import Meeting, number_of, rank_and_size

Given = ParamSpec("Given")
Made = TypeVar("Made")

CONNECT_TIMEOUT = timedelta(seconds=300)  # nodes start minutes apart
_POOLS: list[torch.cuda.MemPool] = []  # of symmetric memory: they have to outlive the tensors in them


@dataclass
class Patience:
    """How long a rank waits for the others in a collective."""

    seconds: float = CONNECT_TIMEOUT.total_seconds()


@dataclass(frozen=True)
class World:
    """One rank's view of all ranks. With one rank there is no process group, and everything here still works."""

    rank: int
    size: int
    local_rank: int
    local_size: int
    device: torch.device
    patience: Patience = field(default_factory=Patience, compare=False)

    @classmethod
    def connect(cls, timeout: timedelta = CONNECT_TIMEOUT) -> World:
        """Joins the ranks that torchrun started, or is alone if it started none.

        Raises UserError if the environment names no place where they could meet, and RunFailed if they are not all
        there when `timeout` has passed; a collective waits as long at first.
        """
        rank, size = rank_and_size()
        local_rank, local_size = number_of("LOCAL_RANK", "0"), number_of("LOCAL_WORLD_SIZE", "1")
        world = cls(rank, size, local_rank, local_size, _pick_device(local_rank), Patience(timeout.total_seconds()))
        if size > 1:
            _join_process_group(world, timeout)
        return world

    def alone(self) -> World:
        """This rank as if there were no others."""
        return World(0, 1, 0, 1, self.device)

    @property
    def has_peers(self) -> bool:
        """Whether there is more than one rank."""
        return self.size > 1

    @property
    def sums_on_device(self) -> bool:
        """Whether collectives run on the device, in the order of its other work, so that a CUDA graph can hold them."""
        return self.size == 1 or "nccl" in str(dist.get_backend_config())

    @property
    def is_main(self) -> bool:
        """True on the one rank that writes files."""
        return self.rank == 0

    def sum(self, tensor: Tensor) -> Tensor:
        """Adds `tensor` up over all ranks, in place, and returns it."""
        if self.has_peers:
            dist.all_reduce(tensor)
        return tensor

    def gather(self, tensor: Tensor, into: Tensor | None = None) -> Tensor:
        """Gathers tensors of equal shape from all ranks, [size, ...] and the same on every rank, in `into` if given."""
        if not self.has_peers:
            return tensor[None]
        everyone = tensor.new_empty(self.size, *tensor.shape) if into is None else into
        if tensor.is_cuda and self.sums_on_device:
            dist.all_gather_into_tensor(everyone, tensor)
        else:  # gloo fills single tensors
            dist.all_gather(list(everyone.unbind()), tensor)
        return everyone

    @contextlib.contextmanager
    def symmetric_memory(self, wanted: bool) -> Iterator[None]:
        """What the block allocates on a GPU lies in memory that NCCL's sums reach without a copy (NCCL 2.27 and newer).

        Every rank must allocate the same. Does nothing unless `wanted`, and unless ranks sum over NCCL.
        """
        if not (wanted and self.device.type == "cuda" and self.has_peers and self.sums_on_device):
            yield
            return
        assert dist.group.WORLD is not None
        backend: Any = dist.group.WORLD._get_backend(self.device)
        pool = torch.cuda.MemPool(backend.mem_allocator)
        with torch.cuda.use_mem_pool(pool):
            yield
        backend.register_mem_pool(pool, symm=True)
        _POOLS.append(pool)

    def broadcast(self, tensor: Tensor, source: int = 0) -> Tensor:
        """Overwrites `tensor` with that of rank `source`, and returns it."""
        if self.size > 1:
            dist.broadcast(tensor, source)
        return tensor

    def gather_objects(self, value: Any) -> list[Any]:
        """Every rank's `value`, in the order of ranks. For small things, now and then."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        with self.waiting():
            dist.all_gather_object(values, value)
        return values

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's `value`, on every rank."""
        values = [value]
        if self.size > 1:
            with self.waiting():
                dist.broadcast_object_list(values, 0)
        return values[0]

    def any(self, flag: bool) -> bool:
        """True on every rank if `flag` is true on one."""
        if self.size == 1:
            return flag
        with self.waiting():
            return bool(self.sum(torch.tensor(int(flag))).item())  # on the host: a GPU need not stop for it

    def together(self, action: Callable[Given, Made], *arguments: Given.args, **named: Given.kwargs) -> Made:
        """What `action` returns on this rank, once it has gone well on every rank.

        If one rank meets a `UserError`, or an `OSError`, all raise the same `UserError`; nobody is left waiting.
        """
        made, problem = _tried(lambda: action(*arguments, **named))
        problems = self.gather_objects(problem)
        first = next((rank for rank, one in enumerate(problems) if one), None)
        if first is None:
            return cast(Made, made)
        kind, text = problems[first]
        everywhere = all(one and one[1] == text for one in problems)
        raise kind(text if everywhere or kind is Interrupted else f"rank {first} of {self.size}: {text}")

    def on_main(self, action: Callable[Given, Made], *arguments: Given.args, **named: Given.kwargs) -> Made | None:
        """Like `together`, for an action of rank 0 alone; returns None on the other ranks."""
        return self.together(lambda: action(*arguments, **named) if self.is_main else None)

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        """Logs a line if the block, which waits for all ranks, takes long; on two ranks per node, one may be late."""
        if self.size == 1 or self.local_rank > 1:
            return contextlib.nullcontext()
        what = f"the other {self.size - 1} of {self.size} ranks, as rank {self.rank} on {socket.gethostname()},"
        return told_if_long(what, self.patience.seconds, "one of them has more to do, or is stuck")

    def set_timeout(self, seconds: float) -> None:
        """How long the ranks wait for each other from now on. Public in torch from 2.15 on, private before."""
        self.patience.seconds = seconds
        if self.size == 1:
            return
        set_timeout = getattr(dist, "set_timeout", None) or dist.distributed_c10d._set_pg_timeout
        set_timeout(timedelta(seconds=seconds), dist.group.WORLD)

    def close(self) -> None:
        """Leaves the process group."""
        if dist.is_initialized():
            dist.destroy_process_group()


def _tried(action: Callable[[], Made]) -> tuple[Made | None, tuple[type[UserError], str] | None]:
    """Returns what `action` returns, or the kind and message of the UserError that it raises."""
    try:
        return action(), None
    except UserError as error:
        return None, (Interrupted if isinstance(error, Interrupted) else UserError, str(error))
    except OSError as error:
        return None, (UserError, f"{error.filename or 'the file system'}: {error.strerror or error}")


def _pick_device(local_rank: int) -> torch.device:
    if not torch.cuda.is_available():
        return torch.device("cpu")
    device = torch.device("cuda", local_rank % torch.cuda.device_count())
    torch.cuda.set_device(device)
    return device


def _join_process_group(world: World, timeout: timedelta) -> None:
    # Its functions have the group as a default argument, and optimizers import it. Imported before there is a group,
    # they cannot keep that alive: gloo's threads would outlive `close`, and abort the rank if one of them let go of a
    # tensor while Python ends.
    importlib.import_module("torch.distributed.nn.functional")
    own_gpu = world.device.type == "cuda" and world.local_size <= torch.cuda.device_count()
    meeting = Meeting.at_place_of_environment(world.rank, world.size, timeout)
    with meeting.awaited():
        store = _of_this_generation(meeting.store_of_all())
        meeting.await_all(store)
        dist.init_process_group(
            # Small host tensors go over gloo, so that agreeing on something never stops a GPU.
            "cpu:gloo,cuda:nccl" if own_gpu else "gloo",
            store=store,
            rank=world.rank,
            world_size=world.size,
            timeout=timeout,
            device_id=world.device if own_gpu else None,
        )


def _of_this_generation(store: dist.Store) -> dist.Store:
    """After a restart torchrun serves the same store again, with the addresses of the dead ranks still in it.

    A prefix of its own keeps each generation apart. Agents of several nodes may count restarts differently; they need
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 instead.
    """
    if int(os.environ.get("GROUP_WORLD_SIZE", "1")) > 1:
        return store
    return dist.PrefixStore(f"generation {os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')}", store)
