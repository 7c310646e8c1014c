"""Which checkpoints there are, by their names, and which of them are kept."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Wanted:
    """Checkpoints that the run may need once more, each by its images seen."""

    bests: Sequence[int] = ()
    """When the best score was taken, and the better ones after it; only the last of them that was saved is kept."""
    way_back: int | None = None
    """The newest that is not beyond it is kept for a rollback."""


def kept(saved: Collection[int], keep_last: int, keep_every_images: int, wanted: Wanted) -> set[int]:
    """Returns which of the checkpoints `saved`, each given by its images seen, to keep.

    They are the newest `keep_last`, the first of every milestone of `keep_every_images` (0: none), and the wanted ones.
    """
    newest_first = sorted(saved, reverse=True)
    found = set(newest_first[:keep_last])
    if keep_every_images:
        milestones = {images // keep_every_images: images for images in newest_first}  # the first of each comes last
        found |= {images for milestone, images in milestones.items() if milestone > 0}
    found |= set([images for images in reversed(wanted.bests) if images in saved][:1])
    if wanted.way_back is not None:
        found |= set([images for images in newest_first if images <= wanted.way_back][:1])
    return found


SUFFIX = ".pt"


def checkpoint_name(images_seen: int) -> str:
    """Name of the checkpoint after so many images; from a thousand million on it has more than nine digits."""
    return f"{images_seen:09d}{SUFFIX}"


def images_in_name(path: Path) -> int:
    """Parses the number of images seen from a checkpoint's file name. Raises ValueError if that is not its name."""
    return int(path.stem)


def newest_first(folder: Path) -> list[Path]:
    """The folder's checkpoints by the number in their names, largest first; empty if there is no such folder.

    Files whose names are not numbers, such as copies that a user has renamed, are left out.
    """
    numbered = (path for path in folder.glob(f"*{SUFFIX}") if path.stem.isascii() and path.stem.isdigit())
    return sorted(numbered, key=images_in_name, reverse=True)
