"""Any images to shards: `python -m data_prep.images --source SOURCE --out DIR`."""

from __future__ import annotations

import argparse
import re
import time
from pathlib import Path

from data_prep import celeba
from data_prep.command_line import (
    add_engine,
    colour,
    engine,
    fraction,
    least_size,
    positive,
    seed,
    settle_engine,
    usable_cores,
)
from data_prep.packing.duplicates import in_words, twins_in, without_duplicates
from data_prep.packing.engines import explain_os_error
from data_prep.packing.image_plan import ImagePlan, choose
from data_prep.packing.order import shuffled
from data_prep.packing.output_folder import find_finished, finish, make_ready, output_folder, remove_records
from data_prep.packing.shard_writer import Record, Task, write_shards
from data_prep.packing.stored_form import Form
from data_prep.sources.entries import Entry, ImageSource
from data_prep.sources.packed_table import PackedTable
from data_prep.sources.recognise import UNDERSTOOD, is_celeba, passed_over, recognise
from data_prep.urls import local_output, local_source, place
from dcgan_dist.base.errors import UserError, exit_cleanly

COPY = ".parquet-images.tmp"
"""Where the images of Parquet files lie while they are packed."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.images",
        description="Packs your own images into shards for training. Give the same command again to go on after an "
        "interruption.",
        epilog=f"""examples:
  python -m data_prep.images --source ~/Pictures/cats --out data/cats
  python -m data_prep.images --source cats.zip --out data/cats-64 --size 64
  python -m data_prep.images --source cats.zip --out data/cats-valid --split valid --hold-out 0.05

--source takes {UNDERSTOOD}.
It and --out may also be URLs (s3, gs, hf, http): the source is fetched first, the shards are uploaded at the end.
JPEG, PNG and WebP files are stored as they are where every decoder reads them alike; all else becomes PNG: other
formats, several frames (the first), transparency, palettes, 16 bits, a camera's orientation, other colour profiles.

then:  python -m dcgan_dist.train --data.shards data/cats""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=place, required=True, metavar="SOURCE", help="where the images are")
    parser.add_argument("--out", type=place, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument(
        "--split",
        choices=("train", "valid", "test", "all"),
        help="of the source's own splits, or of those that --hold-out makes; default: train if there are any, else all",
    )
    parser.add_argument(
        "--hold-out", type=fraction, default=0.0, metavar="SHARE", help="share of the images that are the split valid"
    )
    parser.add_argument(
        "--size", type=positive, metavar="PIXELS", help="store squares of this size, cropped as in training: faster"
    )
    parser.add_argument(
        "--background", type=colour, default="ffffff", metavar="RRGGBB", help="behind transparency; default: ffffff"
    )
    parser.add_argument(
        "--filter", type=least_size, default=0, metavar="min_size=PIXELS", help="leave out images with a shorter side"
    )
    parser.add_argument(
        "--image-key", metavar="NAME", help="the images' column in Parquet, or their extension in tars, if unclear"
    )
    parser.add_argument("--skip-damaged", action="store_true", help="leave out images that cannot be decoded")
    parser.add_argument("--skip-duplicates", action="store_true", help="of images with the same bytes, keep the first")
    parser.add_argument("--no-decode-check", action="store_true", help="trust the images: much faster")
    parser.add_argument("--samples-per-shard", type=positive, default=2048, metavar="N", help="default: 2048")
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the shuffle; default: 0")
    add_engine(parser, usable_cores() + celeba.WAITING)
    return parser


def main() -> None:
    """Runs the command."""
    arguments = build_parser().parse_args()
    settle_engine(arguments)
    try:
        with local_source(arguments.source) as arguments.source, local_output(arguments.out) as arguments.out:
            if is_celeba(arguments.source):
                _prepare_celeba(arguments)
            else:
                with output_folder(arguments.out):
                    prepare(arguments)
    except OSError as error:
        raise explain_os_error(error, arguments.out) from None


def _prepare_celeba(arguments: argparse.Namespace) -> None:
    """Leaves CelebA's layout to its own command."""
    ours = {"--size": arguments.size, "--hold-out": arguments.hold_out, "--filter": arguments.filter}
    if asked := [name for name, value in ours.items() if value]:
        raise UserError(
            f"{arguments.source}: has CelebA's layout, whose images are stored as they are, so {asked[0]} cannot be "
            "heeded; give --source the folder of images inside another name, or leave the option out"
        )
    print(f"{arguments.source}: CelebA's layout, packed as by data_prep.celeba", flush=True)
    arguments.split = arguments.split or "train"
    celeba.prepare(arguments)


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the folder of shards, or says that it is there. Raises UserError and OSError."""
    out: Path = arguments.out
    copy = out / COPY
    try:
        source, kind = recognise(arguments.source, arguments.image_key, copy)
        entries = PackedTable(Entry, source.entries())
        print(f"{arguments.source}: {kind}, {len(entries)} images{_classes_in_words(_classes(entries))}", flush=True)
        if note := passed_over(source):
            print(f"{arguments.source}: {note}")
        plan = make_plan(arguments, source, entries)
        manifest = find_finished(out, plan, arguments.skip_damaged or bool(arguments.filter))
        if manifest is None:
            make_ready(out, plan)
            _pack(arguments, plan)
        else:
            remove_records(out, plan)
            print(f"{out}: already done, {manifest.samples} images in {len(manifest.shards)} shards")
    finally:
        copy.unlink(missing_ok=True)


def _classes(entries: PackedTable[Entry]) -> tuple[str, ...]:
    """The names of the classes; none if all images are of one."""
    names = sorted({entry.label for entry in entries if entry.label})
    return tuple(names) if len(names) > 1 else ()


def _classes_in_words(names: tuple[str, ...]) -> str:
    return f" of {len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


def make_plan(arguments: argparse.Namespace, source: ImageSource, entries: PackedTable[Entry]) -> ImagePlan:
    """Chooses the split's images, without duplicates if that is asked for, and shuffles them over the shards."""
    divided = arguments.hold_out or any(entry.split for entry in entries)
    split = arguments.split or ("train" if divided else "all")
    chosen = choose(entries, split, arguments.hold_out)
    if arguments.skip_duplicates:
        chosen = without_duplicates(source, chosen, arguments.workers)
    if not len(chosen):
        raise UserError(f"{arguments.source}: no image belongs to the split {split!r}")
    form = [arguments.size, arguments.background, arguments.filter]
    return ImagePlan(
        dataset=_slug(arguments.source),
        source=source,
        split=split,
        seed=arguments.seed,
        samples_per_shard=arguments.samples_per_shard,
        entries=chosen,
        order=shuffled(len(chosen), arguments.seed),
        classes=_classes(entries),
        settings=repr(form),
    )


def _slug(path: Path) -> str:
    """A name for the data set that can stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", path.absolute().stem).strip("-").lower()[:40] or "images"


def _pack(arguments: argparse.Namespace, plan: ImagePlan) -> None:
    """Writes the shards and the manifest, and says so."""
    out: Path = arguments.out
    form = Form(not arguments.no_decode_check, True, arguments.background, arguments.size)
    task = Task(out, form, arguments.skip_damaged, arguments.filter)
    print(f"{out}: packing {plan.samples} images of split {plan.split} into {len(plan.shards)} shards", flush=True)
    begun = time.monotonic()
    records = write_shards(task, plan, engine(arguments, len(plan.shards)))
    manifest = finish(out, plan, records)
    seconds = time.monotonic() - begun
    print(f"{out}: done, {manifest.samples} images in {seconds:.1f} s ({plan.samples / seconds:.0f} a second)")
    _tell(out, plan, records, bool(arguments.size))


def _tell(out: Path, plan: ImagePlan, records: list[Record], resized: bool) -> None:
    """What became of images that were not simply stored."""
    if (rewritten := sum(record.rewritten for record in records)) and not resized:
        print(f"{out}: {rewritten} images are stored as PNG, because decoders would not agree about them as they are")
    small = [name for record in records for name in record.small]
    damaged = [name for record in records for name in record.skipped if name not in set(record.small)]
    for what, names in (("small", small), ("damaged", damaged)):
        if names:
            print(f"{out}: left out {len(names)} {what}: {', '.join(names[:5])}{', ...' if len(names) > 5 else ''}")
    if twins := twins_in(plan, records):
        told = f"{len(twins)} images have the bytes of another, which --skip-duplicates leaves out: {in_words(twins)}"
        print(f"{out}: {told}")


if __name__ == "__main__":
    exit_cleanly(main)
