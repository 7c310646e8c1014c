"""Measures ours beside the tutorial's way and that of pytorch/examples, in turns, on this machine.

python -m benchmarks                              what `make bench` runs; twelve minutes on two cores
python -m benchmarks --batches 64 --no-scaling    one batch size, one rank

Prints tables; writes <date>-<device>.json and .png into the folder --out.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

NAMES = ["tutorial", "examples", "ours"]
IMAGES = {"cpu": 1024, "cuda": 16_384}  # an epoch long enough to be more than its beginning
BATCHES = {"cpu": [32, 128, 256], "cuda": [128, 1024]}  # the tutorial's is 128


def main() -> None:
    """Measures, prints, writes."""
    options = _parse()
    import torch
    from rich.console import Console

    from benchmarks import scaling, show
    from benchmarks.anatomy import device_rates
    from benchmarks.interleaved import Setting
    from dcgan_dist.gan.precision import best_precision

    device = "cuda" if torch.cuda.is_available() else "cpu"
    batches = options.batches or BATCHES[device]
    images = options.images or max(IMAGES[device], *batches)
    cores = len(os.sched_getaffinity(0))
    precision = best_precision(torch.device(device)) if options.precision == "auto" else options.precision
    console = Console()
    result: dict[str, Any] = {
        "date": str(date.today()),
        "device": torch.cuda.get_device_name() if device == "cuda" else f"{_cpu_name()}, {cores} cores",
        "versions": {"torch": torch.__version__, "python": platform.python_version()},
        "our precision": precision,
        "device rates": {name: device_rates(device, name) for name in sorted({"fp32", precision})},
        "batches": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        console.print(f"drawing {images} faces ...")
        jpegs, shards = make_images(Path(folder), images)
        for batch in batches:
            setting = Setting(jpegs, shards, batch, cores, device, precision)
            result["batches"][batch] = _compare(setting, options, console)
    path = options.out / f"{result['date']}-{_slug(result['device'])}.json"
    _write(result, path)  # whatever becomes of the ranks
    if options.scaling:
        console.print("scaling over ranks ...")
        ranks = torch.cuda.device_count() if device == "cuda" else cores
        result["scaling"] = scaling.study(ranks, min(batches), cores, options.rounds)
        _write(result, path)
    show.tables(result, console)
    show.chart(result, path.with_suffix(".png"))
    console.print(f"written: {path} and the chart beside it")


def _write(result: dict[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(result, indent=1) + "\n")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    sizes = "default: {cuda} on a GPU, else {cpu}"
    parser.add_argument("--batches", type=int, nargs="+", help=f"images a step ({sizes.format_map(BATCHES)})")
    parser.add_argument("--images", type=int, help=f"drawn faces of an epoch ({sizes.format_map(IMAGES)})")
    parser.add_argument("--epochs", type=int, default=2, help="timed end to end (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="timed turns of steps (default: %(default)s)")
    parser.add_argument("--precision", default="auto", choices=["auto", "fp32", "bf16", "fp16"], help="ours")
    parser.add_argument(
        "--no-scaling", dest="scaling", action="store_false", help="leave out the part on several ranks"
    )
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder (default: %(default)s)")
    options = parser.parse_args()
    batches = options.batches or [1]
    images = max(batches) if options.images is None else options.images
    if min(*batches, images, options.epochs, options.rounds) < 1 or max(batches) > images:
        parser.error("numbers must be at least 1, and no batch larger than --images")
    return options


def make_images(folder: Path, count: int) -> tuple[str, str]:
    """Drawn faces as JPEGs and as shards, by the project's own commands: the folders of both."""
    faces, shards = folder / "faces", folder / "shards"
    commands = (
        ["data_prep.synthetic", "--out", faces, "--num-images", count, "--seed", 0],
        ["data_prep.celeba", "--source", faces, "--out", shards, "--split", "all"],
    )
    for command in commands:
        subprocess.run([sys.executable, "-m", *map(str, command)], check=True, capture_output=True)
    return str(faces / "img_align_celeba"), str(shards)


def _compare(setting: Any, options: argparse.Namespace, console: Any) -> dict[str, Any]:
    """Steps, epochs and anatomy of all contenders at one batch size."""
    from benchmarks.interleaved import Contenders

    console.print(f"batch {setting.batch}: steps ...")
    contenders = Contenders(NAMES, setting)
    try:
        steps = [contenders.each("step") for _ in range(options.rounds + 1)][1:]  # the first warms up
        console.print(f"batch {setting.batch}: {options.epochs} epoch(s) from files ...")
        opening = contenders.each("open")
        epochs = [contenders.each("epoch") for _ in range(options.epochs)]
        anatomy = contenders.each("anatomy")
    finally:
        contenders.close()
    return {name: _summary(name, setting.batch, steps, opening, epochs, anatomy[name]) for name in NAMES}


def _summary(
    name: str,
    batch: int,
    steps: list[dict[str, float]],
    opening: dict[str, float],
    epochs: list[dict[str, Any]],
    anatomy: dict[str, Any],
) -> dict[str, Any]:
    """One contender's figures. `opening`: seconds by contender; `epochs`: seconds, those of waiting, and images."""
    seconds = statistics.median(row[name] for row in steps)
    ratios = [row["tutorial"] / row[name] for row in steps]
    total, waiting, images = (sum(row[name][place] for row in epochs) for place in range(3))
    tutorials = opening["tutorial"] + sum(row["tutorial"][0] for row in epochs)
    training = 1 - waiting / total
    return {
        "step milliseconds": round(1e3 * seconds, 3),
        "step images per second": round(batch / seconds, 1),
        "step times the tutorial's": round(statistics.median(ratios), 2),
        "step lowest and highest": [round(min(ratios), 2), round(max(ratios), 2)],
        "cache fill seconds": round(opening[name], 3),
        "epoch images per second": round(images / total, 1),
        "end to end images per second": round(images / (opening[name] + total), 1),
        "end to end times the tutorial's": round(tutorials / (opening[name] + total), 2),
        "shares of an epoch": {
            "data wait": waiting / total,
            **{stage: share * training for stage, share in anatomy.pop("shares").items()},
        },
        "anatomy": anatomy,
    }


def _cpu_name() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "CPU"


def _slug(device: str) -> str:
    return "-".join("".join(letter if letter.isalnum() else " " for letter in device.lower()).split())


if __name__ == "__main__":
    main()
