"""Checks the settings of a job before its ranks start, and notes how its run stands.

python -m launch.before_run NOTE [--section.field VALUE ...]

writes NOTE for launch.after_run, or ends with status 2 after saying what is wrong with the settings.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.run.folder import RunFolder
from dcgan_dist.run.retention import images_in_name, newest_first


def read_status(folder: RunFolder) -> dict[str, Any]:
    """What status.json says; nothing if there is none."""
    try:
        return json.loads((folder.path / "status.json").read_text())
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise UserError(f"{folder.path / 'status.json'}: cannot be read ({error}); delete it") from None


def newest_checkpoint(folder: RunFolder) -> int:
    """Images seen of the newest checkpoint, from its name; 0 without one."""
    checkpoints = newest_first(folder.checkpoints)
    return images_in_name(checkpoints[0]) if checkpoints else 0


def main() -> int:
    """Writes the note; the exit status."""
    if len(sys.argv) < 2:
        raise UserError("usage: python -m launch.before_run NOTE [--section.field VALUE ...]")
    folder = RunFolder(parse_arguments(sys.argv[2:]).run.folder)
    note = {
        "folder": str(folder.path.absolute()),
        "status": read_status(folder),
        "newest_checkpoint": newest_checkpoint(folder),
    }
    Path(sys.argv[1]).write_text(json.dumps(note))
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
