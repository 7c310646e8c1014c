"""Ray for as long as a command needs it: started on this machine, or a cluster that is there already.

Ray is imported when it is asked for.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.waiting import told_if_long

ANSWER_SECONDS = 60.0  # that a cluster may take to let this machine in
CONNECT_SECONDS = 10.0
_TRY = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False)"
_ADVICE = "is `ray start --head` running there? Give HOST:PORT as it prints it, or auto on a node of the cluster"


@contextlib.contextmanager
def connected(workers: int, address: str | None) -> Iterator[Any]:
    """The module `ray`, connected while the block runs. Without an address Ray is started here with so many CPUs.

    Raises UserError if ray is not installed, cannot start, or there is no such cluster.
    """
    ray = _ray()
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR}
    try:
        if address is None:
            ray.init(address="local", num_cpus=workers, num_gpus=0, include_dashboard=False, **quiet)
        else:
            _assert_it_answers(address)
            ray.init(address=address, **quiet)
    except (RuntimeError, ValueError, OSError) as error:
        where = "Ray cannot start on this machine" if address is None else f"--ray-address {address}: cannot be used"
        raise UserError(f"{where}: {in_one_line(error, 300)}") from None
    try:
        yield ray
    finally:
        ray.shutdown()


def _ray() -> Any:
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as a warning would ask for
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise UserError("--engine ray needs the package ray: pip install -c constraints.txt -e '.[ray]'") from None
    return ray


def _assert_it_answers(address: str) -> None:
    """Raises UserError unless a cluster lets this machine in.

    Ray itself tries for two minutes and then ends the process, so a process of its own tries first.
    """
    given = f"--ray-address {address}"
    if "://" in address:
        raise UserError(f"{given}: is another kind of address; {_ADVICE}")
    if address != "auto":
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise UserError(f"{given}: is no HOST:PORT; {_ADVICE}")
        try:
            socket.create_connection((host, int(port)), timeout=CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            why = getattr(error, "strerror", None) or in_one_line(error)
            raise UserError(f"{given}: cannot be reached ({why}); {_ADVICE}") from None
    command = [sys.executable, "-c", _TRY, address]
    try:
        with told_if_long(f"the Ray cluster at {address}", ANSWER_SECONDS):
            tried = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        raise UserError(f"{given}: does not answer as a Ray cluster does; {_ADVICE}") from None
    if tried.returncode:
        reason = in_one_line((tried.stderr.strip().splitlines() or ["it gave no reason"])[-1], 300)
        raise UserError(
            f"{given}: cannot be used: {reason}; {_ADVICE}; if it asks for a token, set RAY_AUTH_MODE=token"
        )
