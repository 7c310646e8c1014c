"""Memory of the plan of a preparation: bytes an image, of made-up names that come in no order.

python -m benchmarks.plan_memory                    a million
python -m benchmarks.plan_memory --images 10000000  minutes

Each plan is made in a process of its own, which measures its resident memory before, at the most and at the end.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data_prep import images
from data_prep.packing.plan import make_plan
from data_prep.sources.annotations import ANNOTATION_FILES
from data_prep.sources.celeba import Source
from data_prep.sources.celeba_images import ImageFolder, SourceImage
from data_prep.sources.entries import Entry
from data_prep.sources.image_files import FolderOfImages
from data_prep.sources.packed_table import PackedTable

SCRAMBLE = 7_368_787  # a prime, so that numbers times this come in no order and each once
KINDS = ("images", "images --skip-duplicates", "celeba")


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.plan_memory", description="Memory of the plan.")
    parser.add_argument("--images", type=int, default=1_000_000, help="made-up names (default: %(default)s)")
    parser.add_argument("--kind", choices=KINDS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.kind:
        measure(options.kind, options.images)
        return
    for kind in KINDS:
        again = [sys.executable, "-m", "benchmarks.plan_memory", "--images", str(options.images), "--kind", kind]
        subprocess.run(again, check=True)


def measure(kind: str, count: int) -> None:
    """Makes one plan and prints what it took."""
    import numpy as np

    np.argsort(np.zeros(2))  # loaded before the measurement
    with tempfile.TemporaryDirectory() as folder:
        source = made_up_celeba(Path(folder), count) if kind == "celeba" else None
        before, begun = resident_bytes(), time.monotonic()
        plan: Any = make_plan(source, "train", 2048, 0) if source else plan_of_images(count, "skip" in kind)
        seconds = time.monotonic() - begun
        most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        first = plan.shard(next(iter(plan.shards)))
        held, peak = ((after - before) / count for after in (resident_bytes(), most))
    print(
        f"{kind}: {count:,} images, {plan.samples:,} in the plan, held {held:.0f} bytes an image, at the most "
        f"{peak:.0f}, {seconds:.0f} s; the first is {first.images[0].name}",
        flush=True,
    )


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


class MadeUpImages(FolderOfImages):
    """A folder of images that are not there."""

    def entries(self) -> Iterator[Entry]:
        """Names of 28 characters, in a thousand classes."""
        count = int(self.path.name)
        for place in range(count):
            number = place * SCRAMBLE % count
            yield Entry(f"class-{number % 1000:03d}/image-{number:08d}.jpg", f"class-{number % 1000:03d}", "", 100_000)

    def read(self, entry: Entry) -> bytes:
        """Something else of every image."""
        return entry.name.encode()


def plan_of_images(count: int, skip_duplicates: bool) -> object:
    """As data_prep.images makes it."""
    words = ["--source", str(count), "--out", "out", "--workers", "1"]
    arguments = images.build_parser().parse_args([*words, *(["--skip-duplicates"] if skip_duplicates else [])])
    source = MadeUpImages(Path(str(count)))
    return images.make_plan(arguments, source, PackedTable(Entry, source.entries()))


class MadeUpFaces(ImageFolder):
    """CelebA's folder with images that are not there."""

    def images(self) -> Iterator[SourceImage]:
        """Names as CelebA's."""
        count = int(self.path.name)
        return (SourceImage(f"{place * SCRAMBLE % count:08d}.jpg") for place in range(count))


def made_up_celeba(folder: Path, count: int) -> Source:
    """With all five annotation files, of fewer columns than CelebA's: their rows stay in them."""
    row_of = {"attributes": "1 -1", "partition": "0", "identity": "7", "landmarks": "69 109", "bbox": "95 71"}
    files = {part: folder / f"{stem}.txt" for part, stem in ANNOTATION_FILES.items()}
    for part, file in files.items():
        with file.open("w") as rows:
            rows.write("" if part in ("partition", "identity") else f"{count}\nfirst second\n")
            rows.writelines(f"{number:08d}.jpg {row_of[part]}\n" for number in range(count))
    return Source("celeba", MadeUpFaces(Path(str(count))), files)


if __name__ == "__main__":
    main()
