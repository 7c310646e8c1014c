"""`dcgan_dist.train` as a rank under `launch.torchrun`: a mistake of the user's ends the job, and is not tried again.

torchrun starts ranks anew that end with any status but 0. No restart finds shards that are not there: instead of ending
with status 2, as all ranks do then, a rank leaves a note for `launch.torchrun`, which passes it on, and ends with 0.
"""

from __future__ import annotations

import os
import runpy
from pathlib import Path

USAGE_ERROR = 2
NOTE_OF_A_MISTAKE = "DCGAN_NOTE_OF_A_MISTAKE"  # variable of the environment: the file


def main() -> None:
    """Trains, and ends the process."""
    try:
        runpy.run_module("dcgan_dist.train", run_name="__main__", alter_sys=True)
    except SystemExit as end:
        note = os.environ.get(NOTE_OF_A_MISTAKE)
        if end.code != USAGE_ERROR or note is None:
            raise
        Path(note).touch()


if __name__ == "__main__":
    main()
