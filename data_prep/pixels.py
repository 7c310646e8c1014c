"""Lists the decoded pixels that training has kept, and removes them: `python -m data_prep.pixels DIR`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.data import shard_format
from dcgan_dist.data.pixel_file import FOLDER, FoundFile, list_pixel_files
from dcgan_dist.data.shard_format import ShardError


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.pixels",
        description="Lists the files in which training keeps decoded pixels: name, size, what they belong to. Nothing "
        "removes them but this command. A run that finds no file decodes the images again, and a run that is using a "
        "file goes on after its removal.",
        epilog="examples:\n  python -m data_prep.pixels data/celeba-train\n"
        "  python -m data_prep.pixels data/celeba-train --remove",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of shards, or that of --data.cache_dir")
    parser.add_argument("--remove", nargs="*", metavar="NAME", help="remove the files of these names; without: all")
    return parser


def main() -> None:
    """Runs the command."""
    arguments = build_parser().parse_args()
    folder = _folder_of_pixels(arguments.folder)
    found = list_pixel_files(folder)
    if arguments.remove is not None:
        _remove(folder, _chosen(folder, found, arguments.remove))
        return
    print(f"{folder}: {_count(found)}")
    fingerprint = _fingerprint(folder.parent if folder.name == FOLDER else folder)
    for one in found:
        print(f"  {one.path.name}  {_gibibytes(one.bytes)}  {_owner(one, fingerprint)}")


def _folder_of_pixels(folder: Path) -> Path:
    """The folder itself, or its pixels/ if it has one. Raises UserError if it cannot be read."""
    try:
        next(folder.iterdir(), None)
    except OSError as error:
        raise UserError(f"{folder}: cannot be read as a folder ({error.strerror}); give one of shards") from None
    return folder / FOLDER if (folder / FOLDER).is_dir() else folder


def _fingerprint(shards: Path) -> str | None:
    """That of the shards beside which the pixels lie; None if there are none."""
    try:
        return shard_format.read_manifest(shards).fingerprint
    except ShardError:
        return None


def _owner(found: FoundFile, fingerprint: str | None) -> str:
    """What a file belongs to, in words."""
    if found.is_being_written:
        return "is being written"
    if found.pixels is None:
        return "unfinished: its run was killed" if found.path.suffix == ".tmp" else "damaged"
    pixels = found.pixels
    whose = {None: "", pixels.fingerprint: ", of these shards"}.get(fingerprint, ", of other shards")
    what = f"{pixels.samples} images of {pixels.dataset} ({pixels.split}), {pixels.fingerprint[:12]}"
    return f"{what}: crop {pixels.crop}, {pixels.size} pixels, {pixels.decoder}{whose}"


def _chosen(folder: Path, found: list[FoundFile], names: list[str]) -> list[FoundFile]:
    """The files of these names, or all. Raises UserError naming one that is not there."""
    if unknown := sorted(set(names) - {one.path.name for one in found}):
        raise UserError(f"--remove {unknown[0]}: no such file of pixels in {folder}; see: python -m data_prep.pixels")
    return [one for one in found if not names or one.path.name in names]


def _remove(folder: Path, files: list[FoundFile]) -> None:
    """Removes the files. Raises UserError if one cannot be."""
    removed = []
    for one in files:
        if one.is_being_written:
            print(f"  {one.path.name}: left, a run is writing it")
            continue
        try:
            one.path.unlink(missing_ok=True)
        except OSError as error:
            raise UserError(f"{one.path}: cannot be removed ({error.strerror})") from None
        removed.append(one)
        print(f"  {one.path.name}: removed")
    print(f"{folder}: {_count(removed)} removed")


def _count(files: list[FoundFile]) -> str:
    noun = "file" if len(files) == 1 else "files"
    return f"{len(files)} {noun} of pixels, {_gibibytes(sum(one.bytes for one in files))}"


def _gibibytes(count: int) -> str:
    return f"{count / 2**30:.2f} GiB"


if __name__ == "__main__":
    exit_cleanly(main)
