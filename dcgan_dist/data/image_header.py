"""Checks that DALI can parse an image's header before DALI sees it. Standard library only.

A file whose head DALI cannot read makes its decoder fail while other images of the batch are still in its threads, and
about every second time the process then dies of a segmentation fault (seen with DALI 2.4).
"""

from __future__ import annotations

from collections.abc import Sequence

PNG = b"\x89PNG\r\n\x1a\n"
_SCAN = 0xDA
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_OTHERS = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # tables, restart interval, comment, applications


def is_readable(content: Sequence[int]) -> bool:
    """Whether `content`, bytes or a memoryview of them, is a PNG, a WebP, or a JPEG with its segments up to a scan."""
    if bytes(content[:8]) == PNG:
        return len(content) >= 33
    if bytes(content[:4]) == b"RIFF":
        return bytes(content[8:12]) == b"WEBP" and len(content) >= 30
    position, end, framed = 2, len(content) - 10, False
    if bytes(content[:2]) != b"\xff\xd8":
        return False
    while position < end and content[position] == 0xFF:
        marker, length = content[position + 1], content[position + 2] << 8 | content[position + 3]
        if marker == _SCAN:
            return framed
        if marker in _FRAMES:
            if framed or not _is_frame(content, position + 4, length - 2):
                return False
            framed = True
        elif marker not in _OTHERS or length < 2:
            return False
        position += 2 + length
    return False


def _is_frame(content: Sequence[int], start: int, length: int) -> bool:
    """Whether a frame's header is whole: 8 bits deep, neither height nor width 0, and what it says of components."""
    if length < 6:
        return False
    depth, height_and_width, count = content[start], content[start + 1 : start + 5], content[start + 5]
    whole = depth == 8 and count in (1, 3, 4) and length == 6 + 3 * count
    return whole and any(height_and_width[:2]) and any(height_and_width[2:])
