"""How a rank is tied to the torchrun that started it. Standard library only: it works before torch is imported."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

_PRCTL_PARENT_DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux's prctl(2)


def end_with_launcher() -> None:
    """Asks the system to end this rank as soon as its torchrun dies, as after kill -9.

    torchrun gives its ranks sessions of their own: without this they would train on, and write into the same folder as
    the ranks of a job that is started again. A process that torchrun did not start may outlive its parent.
    """
    library = ctypes.CDLL(None)
    if started_by_torchrun() and hasattr(library, "prctl"):  # Linux only
        library.prctl(_PRCTL_PARENT_DEATH_SIGNAL, signal.SIGKILL)


def started_by_torchrun() -> bool:
    """Whether torchrun started this process; RANK and LOCAL_RANK may also be left over in a shell."""
    return "TORCHELASTIC_RUN_ID" in os.environ


def speaks_for_node() -> bool:
    """Whether this process should print what every rank of its node would print in the same words.

    In a terminal without torchrun it is: there LOCAL_RANK is something left over.
    """
    return os.environ.get("LOCAL_RANK", "0") == "0" or (not started_by_torchrun() and sys.stderr.isatty())


def is_restart() -> bool:
    """Whether torchrun or SLURM has restarted this command."""
    return any(int(os.environ.get(name, "0")) > 0 for name in ("TORCHELASTIC_RESTART_COUNT", "SLURM_RESTART_COUNT"))
