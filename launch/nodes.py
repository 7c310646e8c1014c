"""Where the nodes of a job meet: what one says that waits for the others, and in one line why they cannot meet."""

from __future__ import annotations

import errno
import socket
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from torch.distributed import DistNetworkError, DistStoreError, run
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.elastic.rendezvous.utils import parse_rendezvous_endpoint

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.base.waiting import told_if_long
from dcgan_dist.distributed.meeting import port_in_use, why_no_server

CANNOT_MEET = (RendezvousError, DistNetworkError, DistStoreError)
JOIN_SECONDS = 600  # torch's default
DEFAULT_PORT = {"static": 29500}  # and 29400, see torchrun --help


@dataclass(frozen=True)
class Nodes:
    """How many nodes a job has, and where they meet, by torchrun's options."""

    count: int
    """At least."""
    alone: bool
    """Whether there is one node and never more."""
    host: str
    port: int
    option: str
    """The option that chooses another place."""
    seconds: int

    @classmethod
    def of_options(cls, words: list[str]) -> Nodes | None:
        """None for a job of one node that finds a free port itself. UserError if the place is none."""
        options = run.get_args_parser().parse_args(words)
        static = options.rdzv_backend == "static"
        least, most = run.parse_min_max_nnodes(options.nnodes)
        endpoint = options.rdzv_endpoint
        if static and not endpoint and (options.master_port is not None or most > 1):
            endpoint = f"{options.master_addr}:{options.master_port or DEFAULT_PORT['static']}"
        if options.standalone or not endpoint:
            return None
        option = "--rdzv-endpoint" if options.rdzv_endpoint else "--master-addr and --master-port"
        try:
            host, port = parse_rendezvous_endpoint(endpoint, DEFAULT_PORT.get(options.rdzv_backend, 29400))
        except ValueError as error:
            raise UserError(f"{option} {endpoint}: is no HOST:PORT ({error})") from None
        settings = dict(pair.split("=", 1) for pair in options.rdzv_conf.split(",") if "=" in pair)
        seconds = settings.get("timeout" if static else "join_timeout", "")
        seconds = int(seconds) if seconds.isdigit() else JOIN_SECONDS
        return cls(least, most == 1, host, port, option, seconds)

    def told_if_long(self) -> AbstractContextManager[None]:
        """Says so if no ranks have been started when the block has run for a while; it may go on for days then."""
        advice = (
            f"start the same command on all nodes; if another program holds port {self.port}, choose another place "
            f"with {self.option}"
        )
        return told_if_long(lambda: "" if _has_children() else self._all_of_them(), self.seconds, advice)

    def await_name(self) -> None:
        """Returns once the name of the place can be resolved. UserError if it cannot: of one node alone at once."""
        deadline = time.monotonic() + (0 if self.alone else self.seconds)
        while True:
            try:
                socket.getaddrinfo(self.host, self.port)
                return
            except OSError as error:
                if time.monotonic() >= deadline:
                    raise UserError(
                        f"{self.host}: no machine has this name ({error.strerror}); give another with {self.option}"
                    ) from None
            time.sleep(0.5)

    def assert_port_is_free(self) -> None:
        """UserError if this machine, which is the only node, has another program at the place.

        With --rdzv-backend c10d torch would take that for the store of its own job, and wait for its answer.
        """
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((self.host, self.port))
            except OSError as error:
                if self.alone and error.errno == errno.EADDRINUSE:
                    raise UserError(port_in_use(self.port, f"choose another with {self.option}")) from None

    def why_not_met(self, error: Exception) -> UserError | RunFailed:
        """What torch says about it, in one line that says what to do."""
        if reason := why_no_server(error, self.port, f"choose another with {self.option}"):
            return UserError(reason)
        reasons = [str(reason) or type(reason).__name__ for reason in (error, error.__cause__) if reason]
        return RunFailed(
            f"{self._all_of_them()} did not meet ({' '.join(' '.join(reasons).split())[:300]}); is the first one up, "
            f"and its port free and open? choose another place with {self.option}"
        )

    def _all_of_them(self) -> str:
        return f"{self.count} node{'s' * (self.count > 1)} at {self.host}:{self.port}"


def _has_children() -> bool:
    """Whether this process has started others; yes where the system does not tell."""
    lists = list(Path("/proc/self/task").glob("*/children"))
    return not lists or any(path.read_text().strip() for path in lists)
