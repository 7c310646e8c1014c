"""Tars made elsewhere to a folder of shards, where they lie: `python -m data_prep.adopt --source DIR_OF_TARS`."""

from __future__ import annotations

import argparse
import re
import tarfile
import time
from functools import partial
from pathlib import Path
from typing import NamedTuple

from data_prep.command_line import positive, usable_cores
from data_prep.packing.engines import in_processes
from data_prep.packing.output_folder import output_folder
from data_prep.packing.shard_writer import extreme
from data_prep.packing.stored_form import Form, store
from data_prep.sources.entries import DamagedImage
from dcgan_dist.base.errors import UserError, exit_cleanly, in_one_line
from dcgan_dist.base.files import write_text
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.data import shard_format
from dcgan_dist.data.shard_format import Manifest, Shard, ShardError, index_name
from dcgan_dist.data.shard_index import index_lines, read_index

REPACK = "pack them instead: python -m data_prep.images --source {source} --out OTHER_DIR"


class Adopted(NamedTuple):
    """What is found in a tar."""

    shard: Shard
    smallest_image: tuple[int, int]
    largest_image: tuple[int, int]


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.adopt",
        description="Makes a folder of WebDataset tars ready for training where they lie: looks at every image, writes "
        "an index beside each tar, and manifest.json. Nothing is copied. Every sample must have one image, JPEG, PNG "
        "or WebP, that all decoders read alike; other tars are packed by data_prep.images.",
        epilog="example:\n  python -m data_prep.adopt --source /data/laion-faces\n"
        "  python -m dcgan_dist.train --data.shards /data/laion-faces",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--source", type=Path, required=True, metavar="DIR_OF_TARS", help="folder of *.tar")
    parser.add_argument("--no-decode-check", action="store_true", help="look at headers only: much faster")
    parser.add_argument("--workers", type=positive, default=usable_cores(), metavar="N", help="default: all cores")
    return parser


def main() -> None:
    """Runs the command."""
    arguments = build_parser().parse_args()
    try:
        adopt(arguments.source, not arguments.no_decode_check, arguments.workers)
    except OSError as error:
        raise UserError(f"{error.filename or arguments.source}: {error.strerror}") from None


def adopt(folder: Path, decode: bool, workers: int) -> None:
    """Writes indices and the manifest. Raises UserError naming a tar or an image that cannot be trained on, OSError."""
    tars = sorted(folder.glob("*.tar")) if folder.is_dir() else []
    if not tars:
        raise UserError(f"{folder}: is no folder of tars; {REPACK.format(source=folder)}")
    if (folder / shard_format.MANIFEST_NAME).exists():
        manifest = shard_format.read_manifest(folder)
        shard_format.check_sizes(folder, manifest)
        _assert_all_listed(tars, manifest)
        print(f"{folder}: already a folder of shards, {manifest.samples} images in {len(manifest.shards)} tars")
        return
    begun = time.monotonic()
    with output_folder(folder, "--source"), progress_bar("looking", len(tars), "tars") as advance:
        found = []
        for adopted in in_processes(partial(adopt_tar, decode=decode), tars, min(workers, len(tars))):
            found.append(adopted)
            advance(1)
        manifest = Manifest(
            dataset=re.sub(r"[^A-Za-z0-9]+", "-", folder.absolute().name).strip("-").lower() or "images",
            split="all",
            seed=0,
            samples=sum(one.shard.samples for one in found),
            smallest_image=extreme(min, [one.smallest_image for one in found]),
            largest_image=extreme(max, [one.largest_image for one in found]),
            skipped=(),
            shards=tuple(one.shard for one in found),
        )
        shard_format.write_manifest(folder, manifest)
    seconds = time.monotonic() - begun
    print(f"{folder}: adopted, {manifest.samples} images in {len(tars)} tars in {seconds:.1f} s")


def _assert_all_listed(tars: list[Path], manifest: Manifest) -> None:
    """Raises UserError naming a tar that was added after the others were adopted."""
    listed = {shard.file for shard in manifest.shards}
    if added := next((tar for tar in tars if tar.name not in listed), None):
        path = added.parent / shard_format.MANIFEST_NAME
        raise UserError(f"{added}: is not in the manifest; remove {path} and give the command again to adopt all tars")


def adopt_tar(path: Path, decode: bool) -> Adopted:
    """Looks at every image of a tar and writes its index. Raises UserError and OSError."""
    repack = REPACK.format(source=path.parent)
    try:
        index = index_lines(path)
    except (tarfile.TarError, ValueError) as error:
        raise UserError(f"{path}: cannot be used ({in_one_line(error, 120)}); {repack}") from None
    if re.search(r"[^\n]*\s{2}|[^\x20-\x7e\n]", index):
        raise UserError(f"{path}: a member's name has other characters than an index can hold; {repack}")
    write_text(path.parent / index_name(path.name), index)
    sizes = []
    try:
        samples = read_index(path.parent / index_name(path.name))
    except ShardError as error:
        raise UserError(f"{error}; {repack}") from None
    with path.open("rb") as file:
        for sample in samples:
            file.seek(sample.image_offset)
            try:
                stored = store(file.read(sample.image_size), Form(decode_check=decode))
            except DamagedImage as problem:
                raise UserError(f"{path}: {sample.key} is damaged ({problem}); leave it out: {repack}") from None
            if stored.is_rewritten:
                name = f"{sample.key}.{sample.image_extension}"
                raise UserError(f"{path}: decoders would not agree about {name} as it is; {repack}")
            sizes.append((stored.height, stored.width))
    index_path = path.parent / index_name(path.name)
    checksums = shard_format.file_sha256(path), shard_format.file_sha256(index_path)
    shard = Shard(path.name, len(samples), path.stat().st_size, *checksums)
    return Adopted(shard, extreme(min, sizes), extreme(max, sizes))


if __name__ == "__main__":
    exit_cleanly(main)
