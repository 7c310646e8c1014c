"""PNG without compression: a picture for every program, and read as fast as raw pixels by one that knows the form.

Every image of a size has the same number of bytes: a header, rows of pixels without filter, checksums.
"""

from __future__ import annotations

import functools
import struct
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

_EIGHT_BITS_RGB = bytes((8, 2, 0, 0, 0))
_DEFLATE_HEADER = b"\x78\x01"
_LONGEST_BLOCK = 65535  # of bytes that deflate stores as they are


def plain_png(pixels: np.ndarray) -> bytes:
    """A square image, uint8 [size, size, 3], as a PNG: the same bytes on every machine, whatever its zlib."""
    size = len(pixels)
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)  # 0: no filter
    blocks = [rows[start : start + _LONGEST_BLOCK] for start in range(0, len(rows), _LONGEST_BLOCK)]
    stored = b"".join(
        struct.pack("<BHH", block is blocks[-1], len(block), len(block) ^ 0xFFFF) + block for block in blocks
    )
    data = _DEFLATE_HEADER + stored + struct.pack(">I", zlib.adler32(rows))
    return _head(size) + data + struct.pack(">I", zlib.crc32(b"IDAT" + data)) + _chunk(b"IEND", b"")


def plain_png_bytes(size: int) -> int:
    """How long such a file is."""
    return len(_head(size)) + _data_bytes(size) + 4 + 12


def read_plain_png(content: np.ndarray, size: int) -> np.ndarray | None:
    """The pixels, uint8 [size, size, 3], of a file, uint8 [bytes], that `plain_png` wrote; None if it is another."""
    import numpy as np

    head = _head(size)
    if len(content) != plain_png_bytes(size) or bytes(content[: len(head)]) != head:
        return None
    try:
        rows = zlib.decompress(content[len(head) : -16].data)  # compares its checksum
    except zlib.error:
        return None
    if len(rows) != size * (1 + 3 * size):
        return None
    table = np.frombuffer(rows, np.uint8).reshape(size, 1 + 3 * size)
    return None if table[:, 0].any() else table[:, 1:].reshape(size, size, 3)


@functools.cache
def _head(size: int) -> bytes:
    """All bytes before those of the pixels."""
    start = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">II", size, size) + _EIGHT_BITS_RGB)
    return start + struct.pack(">I", _data_bytes(size)) + b"IDAT"


def _data_bytes(size: int) -> int:
    rows = size * (1 + 3 * size)
    return len(_DEFLATE_HEADER) + rows + 5 * -(-rows // _LONGEST_BLOCK) + 4


def _chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
