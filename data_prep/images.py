"""Any images to shards: `python -m data_prep.images --source SOURCE --out DIR`."""

from __future__ import annotations

import argparse
import hashlib
import re
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from data_prep import celeba
from data_prep.command_line import colour, fraction, least_size, positive, seed, usable_cores
from data_prep.packing.engines import explain_os_error, in_processes
from data_prep.packing.image_plan import ImagePlan, choose, shuffled
from data_prep.packing.output_folder import find_finished, finish, make_ready, output_folder, remove_records
from data_prep.packing.shard_writer import Record, Task, write_shards
from data_prep.packing.stored_form import Form
from data_prep.sources.entries import DamagedImage, Entry, ImageSource
from data_prep.sources.recognise import UNDERSTOOD, is_celeba, passed_over, recognise
from data_prep.urls import local_output, local_source, place
from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.base.waiting import progress_bar

HASHED_TOGETHER = 256
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
    workers = usable_cores() + celeba.WAITING
    parser.add_argument("--workers", type=positive, default=workers, metavar="N", help=f"processes; default: {workers}")
    parser.add_argument("--engine", choices=("processes",), default="processes", help="what runs the workers")
    return parser


def main() -> None:
    """Runs the command."""
    arguments = build_parser().parse_args()
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
        entries = sorted(source.entries(), key=lambda entry: entry.name)
        print(f"{arguments.source}: {kind}, {len(entries)} images{_classes_in_words(entries)}", flush=True)
        if note := passed_over(source):
            print(f"{arguments.source}: {note}")
        plan = _plan(arguments, source, entries)
        manifest = find_finished(out, plan, arguments.skip_damaged or bool(arguments.filter))
        if manifest is None:
            make_ready(out, plan)
            _pack(arguments, plan)
        else:
            remove_records(out, plan)
            print(f"{out}: already done, {manifest.samples} images in {len(manifest.shards)} shards")
    finally:
        copy.unlink(missing_ok=True)


def _classes(entries: list[Entry]) -> tuple[str, ...]:
    """The names of the classes; none if all images are of one."""
    names = sorted({entry.label for entry in entries if entry.label})
    return tuple(names) if len(names) > 1 else ()


def _classes_in_words(entries: list[Entry]) -> str:
    names = _classes(entries)
    return f" of {len(names)} classes ({', '.join(names[:5])}{', ...' if len(names) > 5 else ''})" if names else ""


def _plan(arguments: argparse.Namespace, source: ImageSource, entries: list[Entry]) -> ImagePlan:
    """Chooses the split's images, without duplicates if that is asked for, and shuffles them over the shards."""
    divided = any(entry.split for entry in entries) or arguments.hold_out
    split = arguments.split or ("train" if divided else "all")
    classes = _classes(entries)
    chosen = [entry if classes else entry._replace(label="") for entry in choose(entries, split, arguments.hold_out)]
    if arguments.skip_duplicates:
        chosen = _without_duplicates(source, chosen, arguments.workers)
    if not chosen:
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
        classes=classes,
        settings=repr(form),
    )


def _slug(path: Path) -> str:
    """A name for the data set that can stand in a file's name."""
    return re.sub(r"[^A-Za-z0-9]+", "-", path.absolute().stem).strip("-").lower()[:40] or "images"


def _without_duplicates(source: ImageSource, entries: list[Entry], workers: int) -> list[Entry]:
    """Of images with the same bytes only the first by name."""
    batches = [entries[start : start + HASHED_TOGETHER] for start in range(0, len(entries), HASHED_TOGETHER)]
    seen: dict[str, str] = {}
    kept, twins = [], []
    with progress_bar("comparing", len(entries)) as advance:
        for batch, digests in zip(
            batches, in_processes(partial(_digests, source), batches, min(workers, max(1, len(batches)))), strict=True
        ):
            for entry, digest in zip(batch, digests, strict=True):
                if digest and (first := seen.setdefault(digest, entry.name)) != entry.name:
                    twins.append((entry.name, first))
                else:
                    kept.append(entry)
            advance(len(batch))
    if twins:
        print(f"left out {len(twins)} with the bytes of another: {_pairs(twins)}")
    return kept


def _digests(source: ImageSource, entries: list[Entry]) -> list[str]:
    """A checksum of each image's bytes; empty for one that cannot be read, which is told of later."""
    return [_digest(partial(source.read, entry)) for entry in entries]


def _digest(read: Callable[[], bytes]) -> str:
    try:
        return hashlib.sha256(read()).hexdigest()
    except DamagedImage:
        return ""


def _pairs(twins: list[tuple[str, str]]) -> str:
    named = ", ".join(f"{name} (as {first})" for name, first in twins[:3])
    return named + (", ..." if len(twins) > 3 else "")


def _pack(arguments: argparse.Namespace, plan: ImagePlan) -> None:
    """Writes the shards and the manifest, and says so."""
    out: Path = arguments.out
    form = Form(not arguments.no_decode_check, True, arguments.background, arguments.size)
    task = Task(out, form, arguments.skip_damaged, arguments.filter)
    print(f"{out}: packing {plan.samples} images of split {plan.split} into {len(plan.shards)} shards", flush=True)
    begun = time.monotonic()
    records = write_shards(task, plan, arguments.workers)
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
    if twins := _twins(plan, records):
        print(
            f"{out}: {len(twins)} images have the bytes of another, which --skip-duplicates leaves out: {_pairs(twins)}"
        )


def _twins(plan: ImagePlan, records: list[Record]) -> list[tuple[str, str]]:
    """(name, name of the first) of every image whose bytes are there before."""
    named: list[tuple[str, str]] = []
    for tar_name, record in zip(plan.shards, records, strict=True):
        left_out = set(record.skipped)
        names = [entry.name for entry in plan.shard(tar_name).images if entry.name not in left_out]
        named += zip(names, record.contents, strict=False)  # a record of an older version has no contents
    first: dict[str, str] = {}
    return [(name, first[content]) for name, content in sorted(named) if first.setdefault(content, name) != name]


if __name__ == "__main__":
    exit_cleanly(main)
