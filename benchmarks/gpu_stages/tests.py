"""Everything in tests/gpu."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.gpu_check import ROOT, Options


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Passed, failed, skipped, and the names of those that failed."""
    target = "tests/gpu" if options.device == "cuda" else "tests/unit/distributed/test_sync_batch_norm.py"
    workers = min(4, len(os.sched_getaffinity(0)) // 2)
    # By file: what a file trains once for several tests is then made once.
    xdist = options.device == "cuda" and importlib.util.find_spec("xdist")
    spread = ["-n", str(workers), "--dist", "loadfile"] if xdist else []
    command = [sys.executable, "-m", "pytest", target, "-q", "--tb=short", "--durations=10", "-p", "no:cacheprovider"]
    process = subprocess.Popen(
        [*command, *spread], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout
    failed: list[str] = []
    counts: dict[str, int] = {}
    for line in process.stdout:
        print(line, end="", flush=True)
        failed += re.findall(r"^(?:FAILED|ERROR) (\S+)", line)
        if re.search(r"\d+ (passed|failed|skipped).* in [\d.]+s", line):
            counts = {kind: int(number) for number, kind in re.findall(r"(\d+) (passed|failed|skipped|errors?)", line)}
    status = process.wait()
    why = f"{len(failed)} failed: {', '.join(failed[:4])}" if failed else None
    why = why or (None if status == 0 and counts.get("passed") else f"pytest ended with {status}")
    tell({"counts": counts, "failed": failed, **({"why": why} if why else {})})
    return why
