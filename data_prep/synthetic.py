"""Draws faces in CelebA's exact layout, so that everything can be tried without downloading a photograph.

    python -m data_prep.synthetic --out data/faces --num-images 4096 --seed 0

`DIR/img_align_celeba/000001.jpg` ... are 178x218 JPEGs; beside the folder lie the five annotation files. Image number i
depends on the seed and on i alone, whatever the number of images or workers. This file owns the folder and the worker
processes; who is drawn is imagined by `data_prep.faces.traits`, the faces are drawn by `data_prep.faces.drawing`, and
`data_prep.faces.annotations` says what is true of them.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_prep.command_line import usable_cores
from data_prep.faces.annotations import FaceRecord, describe, file_name, split_bounds, write_annotations
from data_prep.faces.drawing import draw_portrait
from data_prep.faces.traits import imagine_portrait
from data_prep.packing.engines import in_processes
from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.base.files import sync_folder, temporary_name, write_text
from dcgan_dist.base.waiting import progress_bar

IMAGES_FOLDER = "img_align_celeba"
RECORD_FILE = "synthetic.json"
"""Written last: a folder that has it is complete."""
UNFINISHED_FILE = "synthetic-unfinished.json"
"""Written first: a folder that has it is ours, and may be written to."""
DRAWING_VERSION = 1
"""Raised whenever the same seed begins to draw other pictures."""
JPEG_QUALITY = 90
FACES_PER_TASK = 64
MOST_IMAGES = 999_999


def draw_faces(images: Path, seed: int, numbers: range) -> list[FaceRecord]:
    """Draws some of the images and returns what to say about them, in the same order. Runs in a worker process."""
    records = []
    for number in numbers:
        portrait = imagine_portrait(seed, number)
        path = images / file_name(number)
        temporary = temporary_name(path)
        # Not synced one by one, that would be slow: `write_faces` syncs them all before it calls them done.
        draw_portrait(portrait).save(temporary, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        temporary.replace(path)
        records.append(describe(seed, number, portrait))
    return records


def write_faces(out: Path, num_images: int, seed: int, workers: int) -> bool:
    """Writes the whole data set into `out`; False if it was there already.

    Raises UserError if `out` holds anything else or cannot be written to.
    """
    request = {"seed": seed, "num_images": num_images, "drawing_version": DRAWING_VERSION}
    if num_images < 1 or num_images > MOST_IMAGES:
        raise UserError(f"--num-images must be between 1 and {MOST_IMAGES}, not {num_images}")
    if workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    try:
        if _is_complete(out, request):
            return False
        images = _open_folder(out, request)
        records = [record for batch in _draw_all(images, seed, num_images, workers) for record in batch]
        os.sync()
        write_annotations(out, records)
        write_text(out / RECORD_FILE, json.dumps(request) + "\n")
        (out / UNFINISHED_FILE).unlink()
        sync_folder(out)
    except OSError as error:
        raise UserError(
            f"cannot write faces into {out}: {error.strerror or error} ({error.filename or out})"
        ) from error
    return True


def _is_complete(out: Path, request: dict[str, int]) -> bool:
    """Whether `out` holds just these faces already. Raises UserError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    finished = (out / RECORD_FILE).is_file()
    record = out / (RECORD_FILE if finished else UNFINISHED_FILE)
    if not record.is_file():
        raise UserError(f"{out} holds other files; give --out a new or empty folder")
    try:
        found = json.loads(record.read_text())
    except ValueError:
        raise UserError(f"{record} is damaged; remove {out} or give another --out") from None
    if found != request:
        raise UserError(
            f"{out} holds another set ({_words(found)}, not {_words(request)}); remove it or give another --out"
        )
    return finished and _count_images(out) == request["num_images"]


def _words(request: dict[str, int]) -> str:
    if not isinstance(request, dict):
        return "unknown"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in request.items())


def _count_images(out: Path) -> int:
    return sum(1 for _ in (out / IMAGES_FOLDER).glob("[0-9]*.jpg"))


def _open_folder(out: Path, request: dict[str, int]) -> Path:
    """Marks `out` as ours and unfinished, clears what a crash left, and returns the folder for images."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / UNFINISHED_FILE, json.dumps(request) + "\n")
    (out / RECORD_FILE).unlink(missing_ok=True)
    images = out / IMAGES_FOLDER
    images.mkdir(exist_ok=True)
    for leftover in (*out.glob(".*.tmp"), *images.glob(".*.tmp")):
        leftover.unlink()
    return images


def _draw_all(images: Path, seed: int, num_images: int, workers: int) -> Iterator[list[FaceRecord]]:
    """Draws every image, spread over the workers; yields the records in the order of the images."""
    tasks = [
        range(first, min(first + FACES_PER_TASK, num_images + 1)) for first in range(1, num_images + 1, FACES_PER_TASK)
    ]
    with progress_bar("drawing", num_images, "faces") as advance:
        for batch in in_processes(partial(draw_faces, images, seed), tasks, min(workers, len(tasks))):
            advance(len(batch))
            yield batch


# --- the command ----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic",
        description="Draws cartoon faces in CelebA's exact layout (178x218 JPEGs and the five annotation files), "
        "to try the whole system without downloading CelebA. The same seed always draws the same bytes.",
        epilog="Then pack them for training:  python -m data_prep.celeba --source DIR --out SHARDS",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder to write to")
    parser.add_argument(
        "--num-images", type=int, required=True, metavar="N", help="how many faces; 4096 train a small GAN"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which faces (default: 0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=usable_cores(),
        metavar="N",
        help="processes (default: all cores, here %(default)s)",
    )
    return parser


def main() -> None:
    options = _parser().parse_args()
    started = time.monotonic()
    if not write_faces(options.out, options.num_images, options.seed, options.workers):
        print(f"{options.out} holds these {options.num_images} faces already (seed {options.seed}); nothing to do")
        return
    last_train, last_valid = split_bounds(options.num_images)
    counts = f"train {last_train}, valid {last_valid - last_train}, test {options.num_images - last_valid}"
    print(f"{options.num_images} faces in {options.out} ({counts}) in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    exit_cleanly(main)
