"""The training command: `python -m dcgan_dist.train` on one process, `torchrun -m dcgan_dist.train` on many."""

from __future__ import annotations

import sys

from dcgan_dist.base.errors import end_with_launcher
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.distributed.leaving import exit_as_rank


def main() -> int:
    """Trains as the command line says; the exit status."""
    end_with_launcher()
    config = parse_arguments(sys.argv[1:])
    from dcgan_dist.training.assemble import (
        run,  # torch takes seconds to import; --help and a typing error should not wait
    )

    return run(config)


if __name__ == "__main__":
    exit_as_rank(main)
