"""Says on one GPU whether everything is right there, whether it learns, and how fast it is; eight minutes at most.

    python -m benchmarks.gpu_check                      all stages, on faces that it draws itself
    python -m benchmarks.gpu_check --shards DIR         on your own shards
    python -m benchmarks.gpu_check --stages learns steps --minutes 15
    python -m benchmarks.gpu_check --device cpu         a shortened rehearsal on the CPU

Prints one table; writes gpu_check.json, the grids it drew and each stage's log into the folder --out. Exit status: 0;
1 if a test failed or nothing was learned; 2 without a GPU. A stage that fails or takes too long costs no other stage.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

from dcgan_dist.base.errors import UserError, exit_cleanly

ROOT = Path(__file__).resolve().parents[1]
SECONDS = {"tests": 240, "learns": 120, "steps": 130, "decoding": 60, "whole_run": 120, "collectives": 45, "search": 90}
"""The stages in their order, and how long each may take in eight minutes; it should need less than half of that."""
MUST_PASS = ("tests", "learns")
NEED_DALI = ("decoding",)
FACES = {"cuda": 8192, "cpu": 256}


@dataclass(frozen=True)
class Options:
    """What every stage is told."""

    out: Path
    shards: Path
    device: str
    minutes: float


def main() -> int:
    """Runs the stages, prints the table, writes the files; the exit status."""
    given = _parse()
    environment = _environment(given.device)
    given.out.mkdir(parents=True, exist_ok=True)
    options = Options(given.out.resolve(), given.shards or given.out.resolve() / "shards", given.device, given.minutes)
    began = time.monotonic()
    if not given.shards:
        _draw_faces(options)
    result: dict[str, Any] = {"date": str(date.today()), **environment, "stages": {}}
    for name in given.stages:
        left = 60 * given.minutes - (time.monotonic() - began)
        limit = min(SECONDS[name] * given.minutes / 8, left)
        print(f"{name} (at most {limit:.0f} s) ...", file=sys.stderr, flush=True)
        result["stages"][name] = _stage(name, options, limit, environment["dali"])
    result["seconds"] = round(time.monotonic() - began, 1)
    result["passed"] = all(result["stages"].get(name, {}).get("verdict") in ("ok", None) for name in MUST_PASS)
    (options.out / "gpu_check.json").write_text(json.dumps(result, indent=1) + "\n")
    if not given.shards:
        shutil.rmtree(options.shards, ignore_errors=True)

    from benchmarks.gpu_stages.table import print_table

    print_table(result)
    print(f"written: {options.out}/gpu_check.json, the logs and the grids beside it")
    return 0 if result["passed"] else 1


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.gpu_check",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--out", type=Path, default=Path("gpu_check"), help="folder of results (default: %(default)s)")
    parser.add_argument("--shards", type=Path, help="folder of shards to train on (default: faces drawn for the check)")
    parser.add_argument(
        "--minutes", type=float, default=8.0, help="time for all stages, 2 to 15 (default: %(default)g)"
    )
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda", help="cpu: a shortened rehearsal")
    parser.add_argument(
        "--stages", nargs="+", choices=list(SECONDS), default=list(SECONDS), metavar="STAGE",
        help=f"only these, of: {', '.join(SECONDS)}",
    )  # fmt: skip
    given = parser.parse_args()
    if not 2 <= given.minutes <= 15:
        parser.error("--minutes must be between 2 and 15")
    if given.shards and not (given.shards / "manifest.json").exists():
        raise UserError(f"--shards {given.shards}: no manifest.json there; give a folder made by data_prep.celeba")
    given.shards = given.shards and given.shards.resolve()
    return given


def _environment(device: str) -> dict[str, Any]:
    """Card, driver's and libraries' versions. Raises UserError where a GPU is asked for and there is none."""
    import importlib.util

    import torch

    from dcgan_dist.tracking.open_trackers import device_name

    if device == "cuda" and not torch.cuda.is_available():
        raise UserError("no GPU is found here (torch.cuda.is_available() is false); --device cpu rehearses on the CPU")
    versions: dict[str, Any] = {"torch": torch.__version__, "python": platform.python_version()}
    if device == "cuda":
        versions |= {"cuda": torch.version.cuda, "cudnn": torch.backends.cudnn.version()}
    dali = importlib.util.find_spec("nvidia") is not None and importlib.util.find_spec("nvidia.dali") is not None
    return {
        "device": device_name(torch.device(device, 0) if device == "cuda" else torch.device("cpu")),
        "kind": device,
        "cores": len(os.sched_getaffinity(0)),
        "versions": versions,
        "dali": dali,
    }


def _draw_faces(options: Options) -> None:
    """Drawn faces as shards, made by the project's own commands."""
    faces = options.out / "faces"
    for command in (
        ["data_prep.synthetic", "--out", faces, "--num-images", FACES[options.device], "--seed", 0],
        ["data_prep.celeba", "--source", faces, "--out", options.shards, "--split", "all"],
    ):
        subprocess.run([sys.executable, "-m", *map(str, command)], cwd=ROOT, check=True, capture_output=True)
    shutil.rmtree(faces)


def _stage(name: str, options: Options, limit: float, dali: bool) -> dict[str, Any]:
    """One stage in a process of its own, with what came of it: `verdict` is ok, failed, timed out or left out."""
    if name in NEED_DALI and not dali:
        return {"verdict": "left out", "why": "NVIDIA DALI is not installed"}
    if limit < 5:
        return {"verdict": "left out", "why": "no time was left"}
    answer, log = options.out / f"{name}.json", options.out / f"{name}.log"
    answer.unlink(missing_ok=True)
    began = time.monotonic()
    command = [
        *(sys.executable, "-m", "benchmarks.gpu_stages", name),
        *map(str, (options.out, options.shards, options.device, options.minutes)),
    ]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, stdout=output, stderr=subprocess.STDOUT, start_new_session=True, env=_quiet()
        )
        try:
            status = process.wait(limit)
            verdict = "ok" if status == 0 else "failed"
        except subprocess.TimeoutExpired:
            verdict = "timed out"
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    found = json.loads(answer.read_text()) if answer.exists() else {}
    answer.unlink(missing_ok=True)
    if verdict != "ok" and not found.get("why"):
        found["why"] = f"see {log.name}: {_last_line(log)}" if verdict == "failed" else f"after {limit:.0f} s"
    return found | {"verdict": verdict, "seconds": round(time.monotonic() - began, 1)}


def _quiet() -> dict[str, str]:
    """This process's environment, but nothing is sent to W&B."""
    return os.environ | {"WANDB_MODE": "disabled", "PYTHONUNBUFFERED": "1"}


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:160] if lines else "nothing was printed"


if __name__ == "__main__":
    exit_cleanly(main)
