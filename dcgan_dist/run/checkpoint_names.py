"""How checkpoints are named, and which of a folder's is the newest. No torch: a scheduler's script asks too."""

from __future__ import annotations

from pathlib import Path

SUFFIX = ".pt"


def checkpoint_name(images_seen: int) -> str:
    """Name of the checkpoint after so many images; from a thousand million on it has more than nine digits."""
    return f"{images_seen:09d}{SUFFIX}"


def images_in_name(path: Path) -> int:
    """How many images had been seen when the checkpoint was written. Raises ValueError if that is not its name."""
    return int(path.stem)


def newest_first(folder: Path) -> list[Path]:
    """The folder's checkpoints by the number in their names, largest first; empty if there is no such folder.

    Files whose names are not numbers, such as copies that a user has renamed, are left out.
    """
    numbered = (path for path in folder.glob(f"*{SUFFIX}") if path.stem.isascii() and path.stem.isdigit())
    return sorted(numbered, key=images_in_name, reverse=True)
