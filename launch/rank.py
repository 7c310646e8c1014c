"""`dcgan_dist.train` as a rank under torchrun: a mistake of the user's ends the job, and is not tried again.

torchrun starts ranks anew that end with any status but 0. No restart finds shards that are not there, so status 2, with
which all ranks end then, becomes 0. What was wrong is in the log, where `launch.after_run` reads it.
"""

from __future__ import annotations

import runpy
import sys

USAGE_ERROR = 2


def main() -> None:
    """Trains, and ends the process."""
    try:
        runpy.run_module("dcgan_dist.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        sys.exit(0 if end.code == USAGE_ERROR else end.code)


if __name__ == "__main__":
    main()
