"""The tars of shards: those that the standard library would write."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from data_prep.packing.tar_writer import TarWriter
from dcgan_dist.data.shard_index import index_lines, index_text

LONG = f"{'folder/' * 20}{'n' * 60}.jpg"  # does not fit into the field of a name
MEMBERS = [
    ("000000001.jpg", 0),
    ("000000001.json", 1),
    ("é 2.png", 511),
    ("é 2.json", 512),
    (LONG, 513),
    ("3.jpg", 10**6),
]


@pytest.mark.parametrize("count", range(1, len(MEMBERS) + 1))
def test_a_tar_is_what_tarfile_writes_and_knows_where_its_members_are(count: int, tmp_path: Path) -> None:
    expected, path = io.BytesIO(), tmp_path / "a.tar"
    with (
        tarfile.open(fileobj=expected, mode="w|", format=tarfile.USTAR_FORMAT) as theirs,
        path.open("wb") as file,
        TarWriter(file) as ours,
    ):
        for name, size in MEMBERS[:count]:
            member = tarfile.TarInfo(name)
            member.size, member.mode, member.uname, member.gname = size, 0o444, "bigdata", "bigdata"
            theirs.addfile(member, io.BytesIO(bytes(size)))
            ours.add(name, bytes(size))
    assert path.read_bytes() == expected.getvalue()
    assert index_text(ours.members) == index_lines(path)


def test_a_name_that_no_tar_can_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="name is too long"):
        TarWriter(io.BytesIO()).add("n" * 101, b"")
