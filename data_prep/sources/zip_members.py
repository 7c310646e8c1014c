"""The JPEGs in a zip, and in which of its folders the right ones are."""

from __future__ import annotations

import zipfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from data_prep.sources.downloads import first_part_of, how_to_join, why_no_zip
from dcgan_dist.base.errors import UserError

ALIGNED = "img_align_celeba"  # the folder of CelebA's aligned and cropped pictures, in whatever folder it lies

Member = tuple[str, zipfile.ZipInfo]
"""A JPEG's name without its folders, and where it is."""


def list_jpegs(path: Path) -> list[Member]:
    """The JPEGs of the folder img_align_celeba/, or of the only folder that holds any.

    Raises UserError with a line of its own for each way a zip can be bad, and naming both if two folders or two members
    could be meant.
    """
    folders: dict[str, list[Member]] = defaultdict(list)
    for entry in _entries(path):
        folder, name = _place(entry.filename)
        if is_jpeg(name):
            folders[folder].append((name, entry))
    aligned = [folder for folder in folders if folder.rpartition("/")[2] == ALIGNED]
    chosen = aligned or list(folders)
    if len(chosen) > 1:
        first, second = (f"{folder}/" if folder else "its top level" for folder in chosen[:2])
        raise UserError(
            f"{path}: holds JPEGs in {first} and in {second}; unpack it and give --source the folder that you mean"
        )
    members = folders[chosen[0]] if chosen else []
    refuse_twins(path, ((name, entry.filename) for name, entry in members))
    return members


def is_jpeg(name: str) -> bool:
    """Whether a name is meant for a JPEG, well spelt or not. Hidden files, which archives from a Mac hold, are not."""
    return name.strip().lower().endswith(".jpg") and not name.startswith(".")


def refuse_twins(where: Path, files: Iterable[tuple[str, str]]) -> None:
    """Raises UserError, naming both, if two images have one name, or names that differ only in case.

    `files`: the name of each image, and how it is called in the folder or zip `where`.
    """
    seen: dict[str, tuple[str, str]] = {}
    for name, called in files:
        if (key := name.lower()) not in seen:
            seen[key] = name, called
            continue
        other, other_called = seen[key]
        if other_called == called:
            raise UserError(f"{where}: holds {called} twice; unpack it and give --source the folder of images")
        why = "are the same name" if other == name else "differ only in case"
        raise UserError(f"{where}: holds {other_called} and {called}, which {why}; remove the one that is not meant")


def _entries(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
    except (zipfile.BadZipFile, ValueError, OSError, NotImplementedError) as error:
        raise UserError(_part_of(path) or why_no_zip(path, error)) from None
    if problem := how_to_join(path):  # its list of members can be read, its members are in other parts
        raise UserError(problem)
    return entries


def _part_of(path: Path) -> str | None:
    """What to say of a file that cannot be read as a zip if it, or what lies beside it, is a part of a split one."""
    try:
        part = first_part_of(path)
        return how_to_join(path) or (how_to_join(part) if part else None)
    except OSError:
        return None


def _place(filename: str) -> tuple[str, str]:
    """Folder and name of a member, also where it was packed on Windows, with ./ in front or with blanks behind."""
    *folders, name = (part.strip() for part in filename.replace("\\", "/").split("/"))
    return "/".join(folder for folder in folders if folder not in ("", ".")), name
