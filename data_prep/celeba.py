"""CelebA to shards: `python -m data_prep.celeba --source DIR_OR_ZIP --out DIR`.

The plan comes first: which image goes into which tar depends on the source, the split, the seed and the shard size
alone. Worker processes then write whole shards, so their number changes nothing in the bytes. Each tar is written under
a temporary name and renamed, with a record beside it of what it holds, so that an interrupted preparation goes on where
it stopped. The manifest comes last and takes the records' place.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from data_prep.command_line import add_engine, engine, positive, seed, settle_engine, usable_cores
from data_prep.packing.engines import explain_os_error
from data_prep.packing.output_folder import (
    damaged_images,
    find_finished,
    finish,
    make_ready,
    output_folder,
    remove_records,
)
from data_prep.packing.plan import Plan, make_plan
from data_prep.packing.shard_writer import Task, write_shards
from data_prep.packing.stored_form import Form
from data_prep.sources.annotations import SPLITS
from data_prep.sources.celeba import WHERE_TO_GET_IT, find_source
from data_prep.urls import local_output, local_source, place
from dcgan_dist.base.errors import exit_cleanly

WAITING = 6  # workers more than cores: some always wait for the disk; from files not read before, half the time


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.celeba",
        description="Packs CelebA into shards for training: tars of untouched JPEGs in a shuffled order, an index "
        "beside each, and a manifest with checksums. Give the same command again to go on after an interruption.",
        epilog=f"""examples:
  python -m data_prep.celeba --source data/celeba --out data/celeba-train
  python -m data_prep.celeba --source ~/Downloads/img_align_celeba.zip --out data/celeba-valid --split valid

--source may be the folder with img_align_celeba/ (or img_align_celeba.zip) and the annotation files, the official
folder with Img/, Anno/ and Eval/, Kaggle's copy, or the zip itself with the annotation files beside it.

{WHERE_TO_GET_IT}.""",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=place, required=True, metavar="DIR_OR_ZIP", help="where CelebA is")
    parser.add_argument("--out", type=place, required=True, metavar="DIR", help="folder for the shards")
    parser.add_argument("--split", choices=(*SPLITS.values(), "all"), default="train", help="default: train")
    parser.add_argument(
        "--samples-per-shard", type=positive, default=2048, metavar="N", help="default: 2048, about 20 MB"
    )
    parser.add_argument("--seed", type=seed, default=0, metavar="S", help="of the shuffle; default: 0")
    add_engine(parser, usable_cores() + WAITING)
    parser.add_argument("--skip-damaged", action="store_true", help="leave out images that cannot be decoded")
    parser.add_argument("--no-decode-check", action="store_true", help="trust the images: much faster")
    return parser


def main() -> None:
    """Runs the command."""
    arguments = build_parser().parse_args()
    settle_engine(arguments)
    try:
        with local_source(arguments.source) as arguments.source, local_output(arguments.out) as arguments.out:
            prepare(arguments)
    except OSError as error:
        raise explain_os_error(error, arguments.out) from None


def prepare(arguments: argparse.Namespace) -> None:
    """Makes the folder of shards, or says that it is there. Raises UserError and OSError."""
    source = find_source(arguments.source)
    plan = make_plan(source, arguments.split, arguments.samples_per_shard, arguments.seed)
    out: Path = arguments.out
    with output_folder(out):
        manifest = find_finished(out, plan, arguments.skip_damaged)
        if manifest is None:
            make_ready(out, plan)
            pack(arguments, plan)
            return
        remove_records(out, plan)
        print(f"{out}: already done, {manifest.samples} images in {len(manifest.shards)} shards")
        if not arguments.no_decode_check:
            print(f"{out}: not decoded this time, which does: python -m data_prep.verify {out} --decode")


def pack(arguments: argparse.Namespace, plan: Plan) -> None:
    """Writes the shards and the manifest, and says so."""
    out: Path = arguments.out
    check, skip = not arguments.no_decode_check, arguments.skip_damaged
    task = Task(out, Form(decode_check=check, as_seen=False), skip_damaged=skip)
    print(f"{out}: packing {plan.samples} images of split {plan.split} into {len(plan.shards)} shards", flush=True)
    begun = time.monotonic()
    records = write_shards(task, plan, engine(arguments, len(plan.shards)))
    manifest = finish(out, plan, records)
    seconds = time.monotonic() - begun
    print(f"{out}: done, {manifest.samples} images in {seconds:.1f} s ({plan.samples / seconds:.0f} a second)")
    if rewritten := sum(record.rewritten for record in records):
        print(f"{out}: {rewritten} images are JPEGs that decoders read in different ways; they are stored as PNG")
    if manifest.skipped:
        print(f"{out}: left out {damaged_images(manifest)}")


if __name__ == "__main__":
    exit_cleanly(main)
