"""Checks every byte of a folder or URL of shards against its manifest: `python -m data_prep.verify DIR_OR_URL`."""

from __future__ import annotations

import argparse
import io
import json
import tarfile
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from data_prep.command_line import positive, usable_cores
from data_prep.packing.engines import in_processes
from data_prep.urls import place
from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.base.urls import Remote
from dcgan_dist.base.waiting import progress_bar
from dcgan_dist.data import shard_format, shard_index
from dcgan_dist.data.shard_format import Manifest, Shard, ShardError, index_name
from dcgan_dist.data.shard_index import Sample


def shard_problems(folder: Path, decode: bool, shard: Shard) -> list[str]:
    """One line for each thing that is wrong with a shard; none if every byte is right."""
    try:
        return _shard_problems(folder, decode, shard)
    except OSError as error:
        return [f"{error.filename or folder / shard.file}: cannot be read ({error.strerror})"]


def _shard_problems(folder: Path, decode: bool, shard: Shard) -> list[str]:
    tar, index = folder / shard.file, folder / index_name(shard.file)
    problems = [f"{path}: missing" for path in (tar, index) if not path.is_file()]
    if problems:
        return problems
    if (size := tar.stat().st_size) != shard.bytes:
        kind = "truncated" if size < shard.bytes else "too long"
        problems.append(f"{tar}: {kind}, it has {size} bytes and the manifest says {shard.bytes}")
    elif shard_format.file_sha256(tar) != shard.sha256:
        problems.append(f"{tar}: damaged, its SHA-256 is not the manifest's")
    if shard_format.file_sha256(index) != shard.index_sha256:
        problems.append(f"{index}: damaged, its SHA-256 is not the manifest's")
    # Checksums right and content wrong would be a fault of the writer, so the content is looked at in any case.
    return problems + list(_content_problems(tar, index, shard, decode))


def _content_problems(tar: Path, index: Path, shard: Shard, decode: bool) -> Iterator[str]:
    try:
        if index.read_text(errors="replace") != shard_index.index_lines(tar):
            yield f"{index}: does not describe {tar.name} as it is"
        samples = shard_index.read_index(index)
    except (tarfile.TarError, ValueError) as error:
        yield f"{tar}: cannot be read as a tar: {error}"
        return
    except ShardError as error:
        yield str(error)
        return
    if len(samples) != shard.samples:
        yield f"{index}: has {len(samples)} samples and the manifest says {shard.samples}"
    yield from _sample_problems(tar, samples, decode)


def _sample_problems(tar: Path, samples: list[Sample], decode: bool) -> Iterator[str]:
    """Looks into every sample: the annotations are JSON, and the image can be decoded if that is asked for."""
    with tar.open("rb") as file:
        for sample in samples:
            file.seek(sample.annotation_offset)
            try:
                json.loads(file.read(sample.annotation_size) or b"{}")
            except ValueError:
                yield f"{tar}: {sample.key}.json is not JSON"
            if decode:
                file.seek(sample.image_offset)
                if problem := _decoding_problem(file.read(sample.image_size)):
                    yield f"{tar}: {sample.key}.{sample.image_extension} cannot be decoded: {problem}"


def _decoding_problem(jpeg: bytes) -> str | None:
    from PIL import Image

    try:
        Image.open(io.BytesIO(jpeg), formats=("JPEG", "PNG", "WEBP")).load()
    except Exception as error:  # Pillow's plugins raise half a dozen kinds
        return str(error)
    return None


def shard_problems_behind_url(url: str, decode: bool, shard: Shard) -> list[str]:
    """The same for a shard behind a URL, which is fetched for that."""
    remote = Remote(url)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        try:
            for file in (shard.file, index_name(shard.file)):
                if (size := remote.size(file)) is not None:
                    with (folder / file).open("wb") as copy:
                        remote.fetch(file, size, copy)
        except UserError as error:
            return [str(error)]
        return [problem.replace(name, url) for problem in shard_problems(folder, decode, shard)]


UNLISTED_ADVICE = "remove it, or remove manifest.json and adopt all tars anew (data_prep.adopt)"


def unlisted_files(folder: Path | str, manifest: Manifest) -> list[str]:
    """One line for each shard or index in the folder that the manifest does not list."""
    listed = {name for shard in manifest.shards for name in (shard.file, index_name(shard.file))}
    names = [path.name for path in folder.iterdir()] if isinstance(folder, Path) else list(Remote(folder).files())
    found = sorted(name for name in names if name.endswith((".tar", ".idx")) and "/" not in name)
    return [f"{folder}/{name}: is not in the manifest; {UNLISTED_ADVICE}" for name in found if name not in listed]


def folder_problems(folder: Path | str, manifest: Manifest, decode: bool, workers: int) -> list[str]:
    """One line for each thing that is wrong, in the order of the shards."""
    problems = unlisted_files(folder, manifest)
    if isinstance(folder, Path):
        check = partial(shard_problems, folder, decode)
    else:
        check = partial(shard_problems_behind_url, folder, decode)
    with progress_bar("checking", len(manifest.shards), "shards") as advance:
        for found in in_processes(check, manifest.shards, min(workers, len(manifest.shards))):
            problems += found
            advance(1)
    return problems


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.verify",
        description="Checks every byte of a folder of shards against its manifest.json and names what is wrong.",
        epilog="Exit status: 0 if all is right, 1 if something is wrong, 2 if the folder is missing.\n\n"
        "example:\n  python -m data_prep.verify data/celeba-train",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=place, metavar="DIR", help="folder or URL of shards")
    parser.add_argument("--decode", action="store_true", help="decode every image as well, which takes longer")
    parser.add_argument("--workers", type=positive, default=usable_cores(), metavar="N", help="default: all cores")
    return parser


def main() -> int:
    """Runs the command."""
    arguments = build_parser().parse_args()
    try:
        return verify(arguments.folder, arguments.decode, arguments.workers)
    except OSError as error:
        raise UserError(f"{error.filename or arguments.folder}: {error.strerror}") from None


def verify(folder: Path | str, decode: bool, workers: int) -> int:
    """Prints what is wrong; the exit status."""
    if isinstance(folder, Path) and not folder.is_dir():
        raise UserError(f"{folder}: no such folder")
    try:
        manifest = shard_format.read_manifest(folder)
    except ShardError as error:
        print(error)
        return 1
    problems = folder_problems(folder, manifest, decode, workers)
    for problem in problems:
        print(problem)
    if problems:
        named = any(not problem.endswith(UNLISTED_ADVICE) for problem in problems)
        advice = "; put good copies of the named files in place, or prepare the images again in another folder"
        print(f"{folder}: {len(problems)} problem{'s' * (len(problems) > 1)}{advice if named else ''}")
        return 1
    skipped = len(manifest.skipped)
    left_out = f", {skipped} image{'s' * (skipped > 1)} left out" if skipped else ""
    print(f"{folder}: all right, {manifest.samples} images in {len(manifest.shards)} shards{left_out}")
    return 0


if __name__ == "__main__":
    exit_cleanly(main)
