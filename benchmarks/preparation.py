"""data_prep beside what it cannot be faster than: decoding alone, `tar cf`, and its memory at two sizes.

python -m benchmarks.preparation                   data_prep.celeba with 4,000 drawn faces, in turns
python -m benchmarks.preparation --of images       data_prep.images with a folder of them
python -m benchmarks.preparation --images 20260 --copies 10    as many files as CelebA has
python -m benchmarks.preparation --cold            every turn reads from the disk
python -m benchmarks.preparation --memory          10,000 and 40,000 drawn faces, which take minutes to draw
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.preparation",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--of", choices=("celeba", "images"), default="celeba", help="the command (default: %(default)s)"
    )
    parser.add_argument("--images", type=int, default=4000, help="drawn faces (default: %(default)s)")
    parser.add_argument(
        "--copies", type=int, default=1, help="of each, under names of their own (default: %(default)s)"
    )
    parser.add_argument("--rounds", type=int, default=3, help="turns of each (default: %(default)s)")
    parser.add_argument("--cold", action="store_true", help="drop the files from the system's cache before each turn")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if options.memory:
            _memory(Path(folder), options.of)
        else:
            _speed(Path(folder), options.of, options.images, options.copies, options.rounds, options.cold)


def _speed(folder: Path, command: str, drawn: int, copies: int, rounds: int, cold: bool) -> None:
    faces, jpegs = _draw(folder, drawn), folder / "faces" / "img_align_celeba"
    images = _copy(faces, copies)
    os.sync()  # so that nobody pays for these files
    ways: dict[str, Callable[[], object]] = {
        "decoding alone": lambda: decode_all(jpegs, decode),
        "... as the check does": lambda: decode_all(jpegs, decode_roughly),
        f"data_prep.{command}": lambda: _run(*_preparing(command, faces, folder / "out")),
        "tar cf": lambda: subprocess.run(["tar", "cf", folder / "all.tar", jpegs], check=True, capture_output=True),
        "... --no-decode-check": lambda: _run(*_preparing(command, faces, folder / "out"), "--no-decode-check"),
    }
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            if cold:
                _forget(jpegs)
            start = time.perf_counter()
            way()
            if turn:
                seconds[name].append(time.perf_counter() - start)
            shutil.rmtree(folder / "out", ignore_errors=True)
            (folder / "all.tar").unlink(missing_ok=True)
    medians = {name: statistics.median(times) for name, times in seconds.items()}
    for name, taken in medians.items():
        print(f"{name:24}{taken:8.2f} s{images / taken:10,.0f} images/s")
    alone, roughly, checked, tar, unchecked = medians.values()
    print(f"with the check at {alone / checked:.0%} of the speed of decoding alone (goal 85%)")
    print(f"and at {roughly / checked:.0%} of that of decoding as the check does, which paints an eighth of the size")
    print(f"without it {unchecked / tar:.1f} times the time of tar cf (goal 2)")


def _memory(folder: Path, command: str) -> None:
    few, many = 10_000, 40_000
    peaks = {}
    for images in (few, many):
        faces = _draw(folder, images)
        peaks[images], largest = _peak_memory(_preparing(command, faces, folder / "out"))
        print(f"{images:,} images: {peaks[images]:,.1f} MiB in the command, {largest:,.1f} MiB in its largest process")
        shutil.rmtree(faces)
        shutil.rmtree(folder / "out")
    print(f"the command takes {(peaks[many] - peaks[few]) * 2**20 / (many - few):,.0f} bytes more for each image")


def _peak_memory(words: tuple[str, ...]) -> tuple[float, float]:
    """MiB that a preparation takes at most: the command alone, and its largest process."""
    command = [sys.executable, "-m", *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    peak = 0.0
    while True:
        ended, status, usage = os.wait4(process.pid, os.WNOHANG)
        if ended:
            break
        peak = _high_water_mib(process.pid) or peak
        time.sleep(0.02)
    if status:
        raise RuntimeError(f"{words[0]} ended with status {os.waitstatus_to_exitcode(status)}")
    return peak, usage.ru_maxrss / 1024


def _high_water_mib(process: int) -> float:
    """The most memory a process has had so far; 0 once it has ended."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{process}/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return int(line.split()[1]) / 1024
    return 0.0


def _draw(folder: Path, images: int) -> Path:
    faces = folder / "faces"
    _run("data_prep.synthetic", "--out", faces, "--num-images", images, "--seed", 0)
    return faces


def _copy(faces: Path, copies: int) -> int:
    """Puts more copies of every drawn face, with their annotations, beside the first; how many there are then."""
    jpegs = sorted((faces / "img_align_celeba").glob("*.jpg"))
    names = [[f"{number + copy * len(jpegs):06d}.jpg" for number in range(1, len(jpegs) + 1)] for copy in range(copies)]
    for copied in names[1:]:
        for jpeg, name in zip(jpegs, copied, strict=True):
            shutil.copyfile(jpeg, jpeg.with_name(name))
    for table in faces.glob("*.txt"):
        lines = table.read_text().splitlines()
        header, rows = lines[: -len(jpegs)], [line.partition(" ")[2] for line in lines[-len(jpegs) :]]
        if header:
            header[0] = str(copies * len(jpegs))  # the count
        lines = [f"{name} {row}" for copied in names for name, row in zip(copied, rows, strict=True)]
        table.write_text("\n".join([*header, *lines, ""]))
    return copies * len(jpegs)


def _forget(folder: Path) -> None:
    """Drops the files of a folder from the system's cache."""
    for path in folder.iterdir():
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _preparing(command: str, faces: Path, out: Path) -> tuple[str, ...]:
    """The module that packs all drawn faces, or their folder alone as any other pictures, and its options."""
    source = faces if command == "celeba" else faces / "img_align_celeba"
    return (f"data_prep.{command}", "--source", str(source), "--out", str(out), "--split", "all")


def _run(module: str, *arguments: object) -> None:
    subprocess.run([sys.executable, "-m", module, *map(str, arguments)], check=True, capture_output=True)


def decode_all(folder: Path, way: Callable[[Path], None]) -> None:
    """Every JPEG of a folder, by as many processes as there are cores."""
    paths = sorted(folder.glob("*.jpg"))
    with ProcessPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(way, paths, chunksize=64):
            pass


def decode(path: Path) -> None:
    """One JPEG to pixels, and away."""
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def decode_roughly(path: Path) -> None:
    """One JPEG as data_prep's check decodes it: every bit is read, an eighth of the size painted."""
    from PIL import Image

    with Image.open(path) as image:
        image.draft(image.mode, (1, 1))
        image.load()


if __name__ == "__main__":
    main()
