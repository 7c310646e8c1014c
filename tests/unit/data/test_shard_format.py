"""The shard format: manifests that vouch for a folder, and indices that find its samples."""

from __future__ import annotations

import dataclasses
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from dcgan_dist.data import shard_format, shard_index
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import MANIFEST_NAME, Manifest, Shard, ShardError


def write_tar(path: Path, members: dict[str, bytes]) -> None:
    with tarfile.open(path, "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A shard folder of two shards with two and one samples; the bytes of the images are of no matter here."""
    shards = []
    for number, keys in enumerate((["7", "3"], ["5"])):
        tar = tmp_path / f"celeba-train-{number:06d}.tar"
        write_tar(tar, {f"{key}.{end}": key.encode() * 700 for key in keys for end in ("jpg", "json")})
        index = tar.with_suffix(".idx")
        index.write_text(shard_index.index_lines(tar))
        checksums = shard_format.file_sha256(tar), shard_format.file_sha256(index)
        shards.append(Shard(tar.name, len(keys), tar.stat().st_size, *checksums))
    manifest = Manifest("celeba", "train", 0, 3, (218, 178), (218, 178), (), tuple(shards), plan="")
    shard_format.write_manifest(tmp_path, manifest)
    return tmp_path


def edit_manifest(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads((folder / MANIFEST_NAME).read_text())
    change(content)
    (folder / MANIFEST_NAME).write_text(json.dumps(content))


def resign(content: dict[str, Any], **changes: object) -> None:
    """Changes fields and makes the fingerprint fit, as somebody determined could."""
    content.update(changes)
    content["shards"] = tuple(Shard(**shard) for shard in content["shards"])
    del content["fingerprint"]
    manifest = Manifest(**content)
    content.clear()
    content.update(dataclasses.asdict(manifest) | {"fingerprint": manifest.fingerprint})


def test_a_manifest_reads_back_as_it_was_written(folder: Path) -> None:
    manifest = shard_format.read_manifest(folder)
    assert (manifest.samples, len(manifest.shards), manifest.smallest_image) == (3, 2, (218, 178))
    assert json.loads((folder / MANIFEST_NAME).read_text())["fingerprint"] == manifest.fingerprint
    shard_format.check_sizes(folder, manifest)
    for shard in manifest.shards:
        shard_format.check_shard(folder, shard)


def test_the_fingerprint_depends_on_every_field(folder: Path) -> None:
    manifest = shard_format.read_manifest(folder)
    changes: dict[str, Any] = {
        "dataset": "synthetic",
        "split": "valid",
        "seed": 1,
        "samples": 4,
        "smallest_image": (1, 1),
        "largest_image": (999, 999),
        "skipped": ("000001.jpg",),
        "shards": manifest.shards[::-1],
        "plan": "x",
        "format_version": 2,
    }
    assert set(changes) == {field.name for field in dataclasses.fields(Manifest)}
    fingerprints = {dataclasses.replace(manifest, **{name: value}).fingerprint for name, value in changes.items()}
    assert len(fingerprints | {manifest.fingerprint}) == len(changes) + 1


def test_a_missing_folder_and_a_missing_manifest_say_how_to_make_them(tmp_path: Path) -> None:
    for folder, said in ((tmp_path / "none", "no such folder"), (tmp_path, "unfinished")):
        with pytest.raises(ShardError, match=said) as caught:
            shard_format.read_manifest(folder)
        assert "python -m data_prep.celeba" in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c.update(seed=1), "edited"),
        (lambda c: c.update(fingerprint="0" * 64), "edited"),
        (lambda c: c.pop("fingerprint"), "edited"),
        (lambda c: c.update(format_version=99), "format_version is 99"),
        (lambda c: c.update(samples="3"), "'samples' should be a whole number"),
        (lambda c: c.update(samples=True), "'samples' should be a whole number"),
        (lambda c: c.update(seed=-1), "'seed' should be a whole number"),
        (lambda c: c.update(split=None), "'split' should be text"),
        (lambda c: c.pop("dataset"), "'dataset' should be text"),
        (lambda c: c.update(extra=1), "unknown field 'extra'"),
        (lambda c: c.update(smallest_image=[218]), r"\[height, width\]"),
        (lambda c: c.update(skipped=[1]), "'skipped' should be text"),
        (lambda c: c.update(shards={}), "'shards' should be a list"),
        (lambda c: c["shards"][0].pop("sha256"), "does not have the fields"),
        (lambda c: c["shards"][0].update(sha256="abc"), "not SHA-256"),
        (lambda c: c["shards"][0].update(samples=0), "no samples"),
        (lambda c: c["shards"][0].update(file="../x.tar"), "unsafe shard name"),
        (lambda c: c["shards"][0].update(file="/etc/x.tar"), "unsafe shard name"),
        (lambda c: resign(c, samples=4), "add up to 3"),
        (lambda c: resign(c, samples=0, shards=[]), "no shards"),
        (lambda c: resign(c, samples=4, shards=[c["shards"][0]] * 2), "twice"),
    ],
)
def test_a_wrong_manifest_is_refused_in_one_line(folder: Path, change: Callable[..., object], said: str) -> None:
    edit_manifest(folder, change)
    with pytest.raises(ShardError, match=said) as caught:
        shard_format.read_manifest(folder)
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b"3", b"\xff\xfe", b"<html>"])
def test_a_manifest_that_is_no_json_object_is_refused(folder: Path, text: bytes) -> None:
    (folder / MANIFEST_NAME).write_bytes(text)
    with pytest.raises(ShardError, match=MANIFEST_NAME):
        shard_format.read_manifest(folder)


def test_sizes_are_checked_without_reading_and_name_the_first_bad_file(folder: Path) -> None:
    manifest = shard_format.read_manifest(folder)
    tar = folder / manifest.shards[1].file
    whole = tar.read_bytes()
    tar.write_bytes(whole[:-1])
    with pytest.raises(ShardError, match=rf"{tar.name}: truncated, it has {len(whole) - 1} bytes .* {len(whole)}"):
        shard_format.check_sizes(folder, manifest)
    tar.unlink()
    with pytest.raises(ShardError, match=rf"{tar.name}: missing.*data_prep.verify"):
        shard_format.check_sizes(folder, manifest)
    (folder / "celeba-train-000000.idx").unlink()
    with pytest.raises(ShardError, match=r"celeba-train-000000.idx: missing"):
        shard_format.check_sizes(folder, manifest)


@pytest.mark.parametrize("suffix", [".tar", ".idx"])
def test_a_flipped_bit_is_found(folder: Path, suffix: str) -> None:
    shard = shard_format.read_manifest(folder).shards[0]
    path = (folder / shard.file).with_suffix(suffix)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(ShardError, match=f"{path.name}: damaged"):
        shard_format.check_shard(folder, shard)
    path.unlink()
    with pytest.raises(ShardError, match=f"{path.name}: cannot be read"):
        shard_format.check_shard(folder, shard)


def test_the_index_leads_to_the_members_bytes(folder: Path) -> None:
    content = (folder / "celeba-train-000000.tar").read_bytes()
    samples = shard_index.read_index(folder / "celeba-train-000000.idx")
    assert [sample.key for sample in samples] == ["7", "3"]
    for sample in samples:
        expected = sample.key.encode() * 700
        assert content[sample.image_offset :][: sample.image_size] == expected
        assert content[sample.annotation_offset :][: sample.annotation_size] == expected


def test_a_mapped_sample_has_its_bytes_and_its_name(folder: Path) -> None:
    shards = MappedShards(folder, shard_format.read_manifest(folder))
    assert [shards.jpeg(sample).tobytes() for sample in range(3)] == [key.encode() * 700 for key in ("7", "3", "5")]
    names = ["celeba-train-000000.tar, image 7", "celeba-train-000000.tar, image 3", "celeba-train-000001.tar, image 5"]
    assert [shards.name(sample) for sample in range(3)] == [f"{folder}/{name}" for name in names]


@pytest.mark.parametrize(("soft", "hard", "said"), [(5, 64, "2\n"), (5, 5, "--samples-per-shard")])
def test_more_shards_than_files_may_be_open_raise_the_limit_or_are_refused_with_advice(
    folder: Path, soft: int, hard: int, said: str
) -> None:
    program = f"""
import pathlib, resource, sys
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import ShardError, read_manifest
folder = pathlib.Path(sys.argv[1])
manifest = read_manifest(folder)
resource.setrlimit(resource.RLIMIT_NOFILE, ({soft}, {hard}))  # three are open already
try:
    print(len(MappedShards(folder, manifest).manifest.shards))
except ShardError as error:
    print(error)
"""
    result = subprocess.run([sys.executable, "-c", program, folder], capture_output=True, text=True, check=False)
    assert said in result.stdout, result


def test_the_index_is_byte_for_byte_that_of_wds2idx(tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx", reason="comes with DALI")
    tar = tmp_path / "odd.tar"
    write_tar(tar, {"a/1.jpg": b"x" * 512, "a/1.seg.png": b"", "a/2.jpg": b"y", ".hidden": b"z", "a/3.json": b"{}"})
    with wds2idx.IndexCreator(str(tar), str(tmp_path / "theirs.idx"), verbose=False) as creator:
        creator.create_index()
    assert shard_index.index_lines(tar) == (tmp_path / "theirs.idx").read_text()


def test_a_tar_without_samples_has_no_index(tmp_path: Path) -> None:
    write_tar(tmp_path / "empty.tar", {})
    with pytest.raises(ValueError, match="no samples"):
        shard_index.index_lines(tmp_path / "empty.tar")


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("", 1),
        ("v1.1 1\njpg 512 1 7.jpg json 1536 1 7.json\n", 1),
        ("v1.2 2\njpg 512 1 7.jpg json 1536 1 7.json\n", 1),
        ("v1.2 x\n", 1),
        ("v1.2 1\njson 512 1 7.json\n", 2),
        ("v1.2 1\njpg 512 1 7.jpg json 1536 1\n", 2),
        ("v1.2 1\njpg 513 1 7.jpg json 1536 1 7.json\n", 2),
        ("v1.2 1\njpg 0 1 7.jpg json 1536 1 7.json\n", 2),
        ("v1.2 1\njpg 512 -1 7.jpg json 1536 1 7.json\n", 2),
        ("v1.2 1\njpg 512 1 7.jpg json 1536 1 8.json\n", 2),
        ("v1.2 2\njpg 512 1 7.jpg json 1536 1 7.json\n\n", 3),
    ],
)
def test_a_malformed_index_names_its_line(tmp_path: Path, text: str, line: int) -> None:
    path = tmp_path / "bad.idx"
    path.write_text(text)
    with pytest.raises(ShardError, match=f"bad.idx, line {line}:"):
        shard_index.read_index(path)
