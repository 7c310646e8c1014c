"""The training command: `python -m dcgan_dist.train` on one process, `torchrun -m dcgan_dist.train` on many."""

from __future__ import annotations

import os
import sys

from dcgan_dist.command_line import parse_arguments
from dcgan_dist.errors import exit_cleanly
from dcgan_dist.launcher import end_with_launcher


def main() -> int:
    """Trains as the command line says; the exit status."""
    end_with_launcher()
    config = parse_arguments(sys.argv[1:])
    from dcgan_dist.assemble import run  # torch takes seconds to import; --help and a typing error should not wait

    return run(config)


if __name__ == "__main__":
    exit_cleanly(main, quiet=os.environ.get("LOCAL_RANK", "0") != "0")
