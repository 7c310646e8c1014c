"""WebDataset tars made elsewhere: members of one key belong together, and one of them is the image."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from data_prep.sources.entries import Entry
from dcgan_dist.base.errors import UserError, in_one_line

IMAGE_EXTENSIONS = ("jpg", "jpeg", "png", "webp", "bmp", "tif", "tiff", "gif", "ppm")


@dataclass(frozen=True)
class Tars:
    """Images in uncompressed tars of a folder, or in one tar."""

    path: Path
    image_key: str | None = None
    """Extension of the image's member, where a sample has several images: `left.png`."""

    def entries(self) -> Iterator[Entry]:
        """All images. Raises UserError for a damaged or compressed tar, and where several images could be meant."""
        files = sorted(self.path.glob("*.tar")) if self.path.is_dir() else [self.path]
        for file in files:
            try:
                with tarfile.open(file, "r:") as tar:
                    members = [member for member in tar if member.isreg()]
            except (tarfile.TarError, OSError) as error:
                why = in_one_line(error, 120)
                raise UserError(
                    f"{file}: cannot be read as an uncompressed tar ({why}); unpack it, and give the folder"
                ) from None
            yield from self._samples(file, members)

    def _samples(self, file: Path, members: list[tarfile.TarInfo]) -> Iterator[Entry]:
        samples: dict[str, dict[str, tuple[int, int]]] = {}
        for member in members:
            folder, _, name = member.name.rpartition("/")
            if name.startswith("."):
                continue
            key, _, extension = name.partition(".")
            key = f"{folder}/{key}" if folder else key
            parts = samples.setdefault(key, {})
            if extension.lower() in parts:
                raise UserError(f"{file}: holds {member.name} twice; keep one of them")
            parts[extension.lower()] = (member.offset_data, member.size)
        for key, parts in samples.items():
            if (image := self._image_of(file, key, parts)) is None:
                continue
            others = {extension: place for extension, place in parts.items() if extension in ("json", "txt")}
            label = self._label(file, parts.get("cls"))
            offset, size = parts[image]
            yield Entry(f"{file.name}/{key}.{image}", label, "", size, (offset, others))

    def _image_of(self, file: Path, key: str, parts: dict[str, tuple[int, int]]) -> str | None:
        """The extension of a sample's image; None if it has none."""
        if self.image_key:
            return self.image_key.lower() if self.image_key.lower() in parts else None
        images = [extension for extension in parts if extension.rpartition(".")[2] in IMAGE_EXTENSIONS]
        if len(images) > 1:
            raise UserError(
                f"{file}: {key} has several images ({', '.join(images)}); say which: --image-key {images[0]}"
            )
        return images[0] if images else None

    def _label(self, file: Path, place: tuple[int, int] | None) -> str:
        return self._bytes(file.name, *place).decode(errors="replace").strip() if place else ""

    def read(self, entry: Entry) -> bytes:
        """The member's bytes. Raises OSError."""
        return self._bytes(_tar_of(entry), entry.where[0], entry.size)

    def _bytes(self, name: str, offset: int, size: int) -> bytes:
        with (self.path / name if self.path.is_dir() else self.path).open("rb") as file:
            file.seek(offset)
            return file.read(size)

    def annotations(self, entry: Entry) -> dict[str, Any]:
        """The sample's JSON, and its text as a caption. Raises OSError; JSON that is none is passed over."""
        name, others = _tar_of(entry), entry.where[1]
        found: dict[str, Any] = {}
        if "txt" in others:
            found["caption"] = self._bytes(name, *others["txt"]).decode(errors="replace").strip()
        if "json" in others:
            try:
                content = json.loads(self._bytes(name, *others["json"]))
                found |= content if isinstance(content, dict) else {"json": content}
            except ValueError:
                pass
        return found


def _tar_of(entry: Entry) -> str:
    """The name of the tar that holds an image."""
    return entry.name.partition("/")[0]
