"""Whether every decoder reads a JPEG alike, found out by a strict walk over its segments.

libjpeg, and so Pillow, passes over stray bytes between segments, where DALI refuses the file; and they differ over the
colours of files that do not say what their components are (ITU T.81 leaves it open; JFIF and Adobe's marker settle it).
"""

from __future__ import annotations

import re
import struct

_START_OF_FRAME = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive; all with Huffman codes
_TABLES, _RESTART_INTERVAL, _START_OF_SCAN, _END = (0xC4, 0xDB), 0xDD, 0xDA, 0xD9
_APPLICATION, _COMMENT = range(0xE0, 0xF0), 0xFE
_MARKER_AFTER_SCAN = re.compile(rb"\xff[^\x00\xd0-\xd7]")
_RESTART = re.compile(rb"\xff([\xd0-\xd7])")
_SAMPLINGS = (b"\x11\x11\x11", b"\x21\x11\x11", b"\x22\x11\x11")  # 4:4:4, 4:2:2, 4:2:0
_SAMPLINGS_OF_FOUR = (b"\x11\x11\x11\x11", b"\x22\x11\x11\x22")


def is_plain(jpeg: bytes) -> bool:
    """Whether it is well-formed to the byte, 8 bits deep, and certainly grey, YCbCr or CMYK in a usual sampling.

    The coded pixels themselves are not looked at. What follows the end of the image does not count.
    """
    frame = colour = b""
    jfif, scans, interval, position = False, 0, 0, 2
    while jpeg[position : position + 1] == b"\xff":
        marker = jpeg[position + 1 : position + 2]
        if marker == bytes([_END]):
            return scans > 0 and _is_plain_frame(frame, jfif, colour)
        content = _segment(jpeg, position)
        if not marker or content is None:
            return False
        position += 4 + len(content)
        kind = marker[0]
        if kind in _START_OF_FRAME and not frame:
            frame = content
        elif kind == _RESTART_INTERVAL and len(content) == 2:
            interval = int.from_bytes(content, "big")
        elif kind == _START_OF_SCAN and frame:
            end = _MARKER_AFTER_SCAN.search(jpeg, position)
            if end is None or not _restarts_in_order(jpeg, position, end.start(), interval):
                return False
            scans, position = scans + 1, end.start()
        elif kind in _APPLICATION:
            jfif |= kind == 0xE0 and content[:5] == b"JFIF\0"
            colour = content if kind == 0xEE and content[:5] == b"Adobe" else colour
        elif kind not in (*_TABLES, _COMMENT):
            return False
    return False


def _segment(jpeg: bytes, position: int) -> bytes | None:
    """The content of the segment whose marker stands at `position`; None if it is cut off."""
    length = int.from_bytes(jpeg[position + 2 : position + 4], "big")
    content = jpeg[position + 4 : position + 2 + length]
    return content if length >= 2 and len(content) == length - 2 else None


def _is_plain_frame(frame: bytes, jfif: bool, adobe: bytes) -> bool:
    if len(frame) < 6:
        return False
    depth, height, width, count = struct.unpack_from(">BHHB", frame)
    components = frame[6:]
    if depth != 8 or not height or not width or len(components) != 3 * count:
        return False
    if count == 1:
        return not adobe
    if count == 4:  # CMYK or YCCK; without Adobe's marker nobody knows whether ink is 0 or 255
        return adobe[11:] in (b"\0", b"\2") and components[1::3] in _SAMPLINGS_OF_FOUR
    is_ycbcr = adobe[11:] == b"\1" if adobe else jfif or components[::3] == b"\1\2\3"
    return count == 3 and is_ycbcr and components[1::3] in _SAMPLINGS


def _restarts_in_order(jpeg: bytes, start: int, end: int, interval: int) -> bool:
    """Whether the restart markers between two places count from 0 to 7 and again, and none stands there unannounced."""
    found = [marker[0] & 7 for marker in _RESTART.findall(jpeg, start, end)]
    return found == [number % 8 for number in range(len(found))] and (interval > 0 or not found)
