"""What can be wrong with a downloaded file, in one line that says what to do."""

from __future__ import annotations

import re
import shlex
import struct
from pathlib import Path

_END_OF_ZIP = b"PK\x05\x06"
_LONGEST_END = 22 + 65535  # bytes of that record with the longest comment
_PART_OF_ZIP = re.compile(r"\.z\d\d+", re.IGNORECASE)  # as zip, WinZip and 7-Zip name all parts but the last
_PIECE_OF_FILE = re.compile(r"(?P<whole>.+\.zip)\.\d{3}", re.IGNORECASE)  # a file that was cut up by its bytes


def looks_like_html(start: bytes) -> bool:
    """Whether a download is a web page, such as Google Drive's about its quota, in place of the file."""
    return start.lstrip(b"\xef\xbb\xbf \t\r\n").lower().startswith((b"<!doctype", b"<html", b"<head"))


def why_no_zip(path: Path, error: Exception) -> str:
    """One line on what is wrong with a file that `zipfile` refused with `error`."""
    try:
        with path.open("rb") as file:
            start = file.read(512)
    except OSError as problem:
        return f"{path}: cannot be read ({problem.strerror})"
    if looks_like_html(start):
        return (
            f"{path}: is a web page, not a zip: Google Drive sends one when the file's download quota is used up; "
            "download it again later, or from the Baidu mirror on the official page"
        )
    if start.startswith(b"PK"):
        return f"{path}: is a truncated or damaged zip ({path.stat().st_size} bytes: {error}); download it again"
    return f"{path}: is not a zip file; download it again"


def how_to_join(path: Path) -> str | None:
    """How to join the parts of a split zip if `path` is one of them, in one line; else None. Raises OSError."""
    if piece := _PIECE_OF_FILE.fullmatch(path.name):
        whole = shlex.quote(str(path.with_name(piece["whole"])))
        return _advice(path, f"cat {whole}.* > {whole}")
    last = path.with_suffix(".zip")
    if _PART_OF_ZIP.fullmatch(path.suffix) or _is_last_of_several(path):
        whole = path.with_name(f"{path.stem}-whole.zip")
        return _advice(path, f"zip -s 0 {shlex.quote(str(last))} --out {shlex.quote(str(whole))}")
    return None


def first_part_of(path: Path) -> Path | None:
    """The first part of a split zip whose whole would be called `path`, if it lies there."""
    return next((part for part in (path.with_suffix(".z01"), Path(f"{path}.001")) if part.is_file()), None)


def _advice(path: Path, command: str) -> str:
    return f"{path}: is a part of a split zip; with all parts in one folder, join them and give the result: {command}"


def _is_last_of_several(path: Path) -> bool:
    """Whether a zip's end says that it is on another disk, as the format calls its parts, than the first."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - _LONGEST_END))
        end = file.read()
    position = end.rfind(_END_OF_ZIP)
    if position < 0 or len(end) < position + 6:
        return False
    (disk,) = struct.unpack_from("<H", end, position + 4)
    if disk == 0xFFFF:  # too many for this record, or simply left to that of large zips, which lies just before it
        return position >= 20 and struct.unpack_from("<L", end, position - 4)[0] > 1
    return disk > 0
