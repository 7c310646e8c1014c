"""How the ranks of a run find each other, and, if they do not, why, in one line."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta

import torch.distributed as dist

from dcgan_dist.base.errors import RunFailed, UserError, in_one_line, speaks_for_node, started_by_torchrun
from dcgan_dist.base.waiting import told_if_long

LEFT_OVER = "if no other ranks were started: unset RANK WORLD_SIZE MASTER_ADDR MASTER_PORT"
POLL_SECONDS = 0.1
CONNECT_SECONDS = 5.0  # for one try to reach rank 0


def number_of(name: str, default: str) -> int:
    """A variable of the environment. UserError if it is no whole number."""
    text = os.environ.get(name) or default
    try:
        return int(text)
    except ValueError:
        raise UserError(f"{name} = {text!r} in the environment: must be a whole number; {LEFT_OVER}") from None


def rank_and_size() -> tuple[int, int]:
    """RANK and WORLD_SIZE of the environment, or rank 0 of 1. UserError if they are half of what ranks need."""
    size = number_of("WORLD_SIZE", "1")
    missing = [name for name in ("RANK", "MASTER_ADDR", "MASTER_PORT") if not os.environ.get(name)]
    if size > 1 and missing:
        are = "is" if len(missing) == 1 else "are"
        raise UserError(
            f"WORLD_SIZE = {size} in the environment, but {' and '.join(missing)} {are} not set: start the ranks with "
            f"torchrun, which sets them; {LEFT_OVER}"
        )
    rank = number_of("RANK", "0")
    if not 0 <= rank < size:
        raise UserError(f"RANK = {rank} and WORLD_SIZE = {size} in the environment do not fit each other; {LEFT_OVER}")
    return rank, size


@dataclass
class Meeting:
    """Where the ranks meet. `store` is the key-value store that all share, once it has been reached."""

    rank: int
    size: int
    host: str
    port: int
    seconds: float
    deadline: float
    store: dist.Store | None = None

    @classmethod
    def at_place_of_environment(cls, rank: int, size: int, timeout: timedelta) -> Meeting:
        """At MASTER_ADDR and MASTER_PORT, from now on until `timeout` has passed."""
        seconds = timeout.total_seconds()
        port = number_of("MASTER_PORT", "")
        return cls(rank, size, os.environ["MASTER_ADDR"], port, seconds, time.monotonic() + seconds)

    @property
    def place(self) -> str:
        """As host:port."""
        return f"{self.host}:{self.port}"

    @property
    def left(self) -> timedelta:
        """The time that is left, at least a second."""
        return timedelta(seconds=max(1.0, self.deadline - time.monotonic()))

    @contextlib.contextmanager
    def awaited(self) -> Iterator[None]:
        """Says, once a node, for whom it waits if the block takes long; RunFailed in one line if it ends in vain."""
        tells = speaks_for_node() or not started_by_torchrun()
        word = told_if_long(self._missing, self.seconds, _advice()) if tells else contextlib.nullcontext()
        try:
            with word:
                yield
        except RuntimeError as error:  # torch has several kinds
            raise RunFailed(self._in_vain(error)) from None

    def store_of_all(self) -> dist.Store:
        """The store, once rank 0 serves it. UserError if it cannot, under this address or on this port."""
        self._await_rank_0()
        try:
            self.store, _, _ = next(iter(dist.rendezvous("env://", timeout=self.left)))
        except (dist.DistNetworkError, ValueError) as error:
            if (reason := why_no_server(error, self.port, "set MASTER_PORT to another one")) is None:
                raise RuntimeError(str(error)) from None
            # A rank's port is torchrun's choice: another start finds another one.
            raise (RunFailed if started_by_torchrun() else UserError)(reason) from None
        return self.store

    def await_all(self, store: dist.Store) -> None:
        """Returns when every rank has called it. RuntimeError if some do not come in time."""
        self.store = store
        store.set(_arrived(self.rank), socket.gethostname())
        while not store.check([_arrived(rank) for rank in range(self.size)]):
            if time.monotonic() > self.deadline:
                raise RuntimeError("the others are here")
            time.sleep(POLL_SECONDS)

    def _await_rank_0(self) -> None:
        """Waits until rank 0 answers; rank 0 itself only checks that its host name resolves.

        torch would try for as long, and fill the screen with the stacks of its C++ code meanwhile.
        """
        while True:
            try:
                if self.rank == 0:
                    socket.getaddrinfo(self.host, self.port)
                else:
                    socket.create_connection((self.host, self.port), CONNECT_SECONDS).close()
                return
            except OSError as error:  # a name that cannot be resolved is one too
                if self.rank == 0 and error.errno == socket.EAI_NONAME:
                    raise UserError(
                        f"MASTER_ADDR = {self.host}: no machine has this name ({error.strerror}); give the address of "
                        f"the one where rank 0 runs; {_advice()}"
                    ) from None
                if time.monotonic() > self.deadline:
                    raise RuntimeError(error.strerror or str(error)) from None
            time.sleep(POLL_SECONDS)

    def _missing(self) -> str:
        """The ranks that have not arrived yet, as far as this rank can know."""
        if self.store is None and self.rank > 0:
            return f"rank 0 of {self.size} at {self.place}"
        if self.store is None:
            return f"{self.size - 1} of {self.size} ranks at {self.place}"
        away = [rank for rank in range(self.size) if not self.store.check([_arrived(rank)])]
        names = ", ".join(map(str, away[:8])) + (", ..." if len(away) > 8 else "")
        if not away:
            return f"{self.size} ranks to connect, which have met at {self.place}"
        return f"{len(away)} of {self.size} ranks ({names}) at {self.place}"

    def _in_vain(self, error: Exception) -> str:
        missing = f"{self.size - 1} of {self.size} ranks at {self.place}"
        with contextlib.suppress(Exception):  # the store may be gone with its rank
            missing = self._missing()
        who = f"rank {self.rank} of {self.size} on {socket.gethostname()}"
        waited = self.seconds - (self.deadline - time.monotonic())  # less than it may if torch gave up by itself
        return f"{who} waited {waited:.0f} seconds in vain for {missing} ({_one_line(error)}); {_advice()}"


def why_no_server(error: Exception, port: int, other_port: str) -> str | None:
    """In one line why a port of this machine cannot be listened on, or None if the error says something else.

    `other_port`: how another one is chosen.
    """
    text = str(error)
    if "EADDRINUSE" in text:
        return port_in_use(port, other_port)
    if "EACCES" in text:
        return f"port {port} of {socket.gethostname()} is only for administrators, as all below 1024; {other_port}"
    if "failed to listen" in text or "port must" in text:
        return f"port {port} of {socket.gethostname()} cannot be listened on ({_one_line(error)}); {other_port}"
    return None


def port_in_use(port: int, other_port: str) -> str:
    """Which port, who could hold it, and with `other_port` how another one is chosen."""
    return (
        f"port {port} of {socket.gethostname()} is in use, perhaps by another run (ss -ltnp 'sport = :{port}' shows by "
        f"whom); end that, or {other_port}"
    )


def _arrived(rank: int) -> str:
    return f"arrived/{rank}"


def _advice() -> str:
    return "see what the other nodes and ranks say" if started_by_torchrun() else LEFT_OVER


def _one_line(error: Exception) -> str:
    return in_one_line(error, 200)
