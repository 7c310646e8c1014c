"""One stage of `benchmarks.gpu_check` in a process of its own: STAGE OUT SHARDS DEVICE MINUTES, writes OUT/STAGE.json.

The answer is written before the process ends, and now and then before: what was measured when a stage is killed counts.
"""

from __future__ import annotations

import importlib
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.gpu_check import Options


def main() -> int:
    """Runs the stage; 1 if it says itself that something is wrong."""
    name, out, shards, device, minutes = sys.argv[1:6]
    options = Options(Path(out), Path(shards), device, float(minutes))

    def tell(found: dict[str, Any]) -> None:
        (options.out / f"{name}.json").write_text(json.dumps(found, indent=1))

    run: Callable[[Options, Callable[[dict[str, Any]], None]], str | None]
    run = importlib.import_module(f"benchmarks.gpu_stages.{name}").run
    return 1 if run(options, tell) else 0


if __name__ == "__main__":
    sys.exit(main())
