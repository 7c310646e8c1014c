"""Grids as data URIs, so that a page needs no file beside it, within a number of bytes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

# From the best down, until a picture fits: the longest side in pixels and the quality of the JPEG.
SMALLER = ((1100, 90), (1100, 80), (800, 80), (560, 75), (400, 70), (256, 60))


def embed(paths: Sequence[Path], most_bytes: int) -> dict[Path, str]:
    """Data URIs of the pictures that can be read, `most_bytes` together: as they are if they fit, else as JPEG."""
    sizes = {path: path.stat().st_size for path in paths if path.is_file()}
    most_bytes = most_bytes * 3 // 4  # base64 writes three bytes as four characters
    share = most_bytes // max(len(sizes), 1)
    as_they_are = sum(sizes.values()) <= most_bytes
    uris = {}
    for path in sizes:  # one at a time: a grid of thousands of images fills a lot of memory
        if image := read_picture(path):
            uris[path] = _uri("png", path.read_bytes()) if as_they_are else _uri("jpeg", _within(image, share))
    return uris


def read_picture(path: Path) -> Image | None:
    """The picture, or None where a file is missing, damaged or larger than Pillow trusts."""
    from PIL import Image

    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError):  # Pillow's ways of saying that it is none
        return None


def _within(image: Image, most_bytes: int) -> bytes:
    content = b""
    for longest, quality in SMALLER:
        copy = image.copy()
        copy.thumbnail((longest, longest))
        file = io.BytesIO()
        copy.save(file, "JPEG", quality=quality, subsampling=0)
        content = file.getvalue()
        if len(content) <= most_bytes:
            break
    return content


def _uri(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
