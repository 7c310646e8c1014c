"""data_prep.celeba and data_prep.verify, run as commands on small copies of CelebA's layouts."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tarfile
import time
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dcgan_dist.base.errors import UserError

NUM_IMAGES = 61
ATTRIBUTES = ("5_o_Clock_Shadow", "Eyeglasses", "Smiling")
LANDMARKS = ("lefteye_x", "lefteye_y", "nose_x", "nose_y")
BOX = ("x_1", "y_1", "width", "height")


def split_of(number: int) -> int:
    return (number > 48) + (number > 55)


def jpeg(number: int) -> bytes:
    """A small image in one of the forms that JPEGs come in."""
    generator = random.Random(number)
    mode = ("RGB", "L", "CMYK")[number % 3 if number < 12 else 0]
    size = (30 + number % 5, 40 + number % 3)
    noise = generator.randbytes(size[0] * size[1] * len(mode.replace("L", "1")))
    buffer = io.BytesIO()
    Image.frombytes(mode, size, noise).save(buffer, "JPEG", progressive=number % 2 == 0)
    return buffer.getvalue()


def rows() -> dict[str, tuple[tuple[str, ...], list[list[int]]]]:
    """By file stem the columns and the values of every image."""
    numbers = range(1, NUM_IMAGES + 1)
    return {
        "list_attr_celeba": (ATTRIBUTES, [[1 if (n >> bit) % 2 else -1 for bit in range(3)] for n in numbers]),
        "list_eval_partition": (("partition",), [[split_of(n)] for n in numbers]),
        "list_landmarks_align_celeba": (LANDMARKS, [[n, 2 * n, 100 + n, 7] for n in numbers]),
        "list_bbox_celeba": (BOX, [[n, 72, 221, 306] for n in numbers]),
    }


def write_annotations(folder: Path, comma: bool = False) -> None:
    """The annotation files in the official format or in Kaggle's."""
    folder.mkdir(parents=True, exist_ok=True)
    for stem, (columns, values) in rows().items():
        header = f"{NUM_IMAGES}\n{'image_id ' if 'bbox' in stem else ''}{' '.join(columns)} \n"
        lines = [f"{n:06d}.jpg {'  '.join(f'{v:2d}' for v in row)}\n" for n, row in enumerate(values, start=1)]
        if stem == "list_eval_partition":
            header, lines = "", [line.replace("  ", " ") for line in lines]
        if comma:
            header = ",".join(("image_id", *columns)) + "\n"
            lines = [f"{n:06d}.jpg,{','.join(map(str, row))}\n" for n, row in enumerate(values, start=1)]
        (folder / f"{stem}.{'csv' if comma else 'txt'}").write_text(header + "".join(lines))


@pytest.fixture(scope="session")
def celeba(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """torchvision's layout. Tests that change it take a copy."""
    folder = tmp_path_factory.mktemp("source") / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    for number in range(1, NUM_IMAGES + 1):
        (folder / "img_align_celeba" / f"{number:06d}.jpg").write_bytes(jpeg(number))
    write_annotations(folder)
    return folder


@pytest.fixture
def copy(celeba: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(celeba, tmp_path / "celeba"))


def command(module: str, *arguments: object) -> list[str]:
    return [sys.executable, "-m", f"data_prep.{module}", *map(str, arguments)]


def run(module: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(module, *arguments), capture_output=True, text=True, timeout=100, check=False)


def prepare(source: Path, out: Path, *options: object) -> subprocess.CompletedProcess[str]:
    return run("celeba", "--source", source, "--out", out, "--samples-per-shard", 10, *options)


def refused(result: subprocess.CompletedProcess[str]) -> str:
    """The one line with which a command ended with status 2."""
    assert result.returncode == 2, result
    assert "Traceback" not in result.stderr
    return result.stderr.strip().splitlines()[-1]


def checksums(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def members(folder: Path) -> dict[str, bytes]:
    contents = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            for member in tar:
                file = tar.extractfile(member)
                assert file
                contents[member.name] = file.read()
    return contents


@pytest.fixture(scope="session")
def shards(celeba: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The train split of `celeba`. Tests that change it take a copy."""
    out = tmp_path_factory.mktemp("shards") / "train"
    result = prepare(celeba, out, "--workers", 1)
    assert result.returncode == 0, result.stderr
    assert "warning: there is no identity_CelebA.txt" in result.stderr
    return out


# --- what is written --------------------------------------------------------------------------------------------------


def test_two_workers_write_the_same_bytes_as_one_and_leave_nothing_else(
    celeba: Path, shards: Path, tmp_path: Path
) -> None:
    assert prepare(celeba, tmp_path / "again", "--workers", 2).returncode == 0
    assert checksums(tmp_path / "again") == checksums(shards)
    names = [f"celeba-train-{number:06d}.{suffix}" for number in range(5) for suffix in ("tar", "idx")]
    assert set(checksums(shards)) == {"manifest.json", *names}


def test_images_are_the_sources_bytes_and_annotations_are_all_there(celeba: Path, shards: Path) -> None:
    packed = members(shards)
    in_split = [number for number in range(1, NUM_IMAGES + 1) if split_of(number) == 0]
    assert set(packed) == {f"{number:06d}.{suffix}" for number in in_split for suffix in ("jpg", "json")}
    for number in in_split:
        assert packed[f"{number:06d}.jpg"] == (celeba / "img_align_celeba" / f"{number:06d}.jpg").read_bytes()
        assert json.loads(packed[f"{number:06d}.json"]) == {
            "file": f"{number:06d}.jpg",
            "split": "train",
            "attributes": {name: bool((number >> bit) % 2) for bit, name in enumerate(ATTRIBUTES)},
            "landmarks": dict(zip(LANDMARKS, [number, 2 * number, 100 + number, 7], strict=True)),
            "bbox": dict(zip(BOX, [number, 72, 221, 306], strict=True)),
        }


def test_samples_are_shuffled_over_all_shards_by_the_seed(celeba: Path, shards: Path, tmp_path: Path) -> None:
    assert prepare(celeba, tmp_path / "other", "--seed", 1, "--no-decode-check").returncode == 0
    order, other = list(members(shards)), list(members(tmp_path / "other"))
    assert order != sorted(order) and order != other and sorted(order) == sorted(other)
    first_shard = {int(name[:6]) for name in order[:20]}
    assert max(first_shard) - min(first_shard) > 24, "the first shard should come from all over the split"


def test_a_tar_is_byte_for_byte_what_webdataset_writes(shards: Path, tmp_path: Path) -> None:
    from webdataset.writer import TarWriter

    theirs = tmp_path / "theirs.tar"
    packed = members(shards)
    with tarfile.open(shards / "celeba-train-000000.tar") as tar:
        keys = [name.removesuffix(".jpg") for name in tar.getnames() if name.endswith(".jpg")]
    with theirs.open("wb") as file, TarWriter(file, mtime=0, encoder=False) as writer:
        for key in keys:
            writer.write({"__key__": key, "jpg": packed[f"{key}.jpg"], "json": packed[f"{key}.json"]})
    assert (shards / "celeba-train-000000.tar").read_bytes() == theirs.read_bytes()


def test_indices_are_byte_for_byte_those_of_wds2idx(shards: Path, tmp_path: Path) -> None:
    wds2idx = pytest.importorskip("wds2idx", reason="comes with DALI")
    for tar in sorted(shards.glob("*.tar")):
        with wds2idx.IndexCreator(str(tar), str(tmp_path / "theirs.idx"), verbose=False) as creator:
            creator.create_index()
        assert (tmp_path / "theirs.idx").read_bytes() == tar.with_suffix(".idx").read_bytes()


def test_plain_webdataset_reads_the_shards(shards: Path) -> None:
    from webdataset.compat import WebDataset

    data = WebDataset([str(path) for path in sorted(shards.glob("*.tar"))], shardshuffle=False).decode("pil")
    samples = list(iter(data))  # pyright: ignore[reportArgumentType, reportCallIssue] (its fluent calls hide its type)
    assert len(samples) == 48
    assert all(sample["json"]["file"] == f"{sample['__key__']}.jpg" and sample["jpg"].size for sample in samples)


def test_dali_reads_the_shards_with_our_indices(shards: Path) -> None:
    dali = pytest.importorskip("nvidia.dali")

    tars = [str(path) for path in sorted(shards.glob("*.tar"))]
    indices = [path.replace(".tar", ".idx") for path in tars]
    pipeline = dali.Pipeline(batch_size=48, num_threads=1, device_id=None)
    with pipeline:
        reader = dali.fn.readers.webdataset(paths=tars, index_paths=indices, ext=["jpg", "json"])
        pipeline.set_outputs(*reader)
    pipeline.build()
    images, annotations = pipeline.run()
    packed = members(shards)
    for image, annotation in zip(images, annotations, strict=True):
        name = json.loads(bytes(np.array(annotation)))["file"]
        assert bytes(np.array(image)) == packed[name]


def test_the_manifest_knows_the_range_of_image_sizes(shards: Path) -> None:
    manifest = json.loads((shards / "manifest.json").read_text())
    assert (manifest["smallest_image"], manifest["largest_image"]) == ([40, 30], [42, 34])
    assert (manifest["dataset"], manifest["split"], manifest["samples"]) == ("celeba", "train", 48)


# --- the layouts ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", ["zip", "deflated zip in a folder", "kaggle", "official", "link to the images"])
def test_every_layout_gives_the_same_shards(celeba: Path, shards: Path, tmp_path: Path, layout: str) -> None:
    source = tmp_path / "source"
    write_annotations(source, comma=layout == "kaggle")
    if "zip" in layout:
        kind = zipfile.ZIP_DEFLATED if "deflated" in layout else zipfile.ZIP_STORED
        with zipfile.ZipFile(source / "img_align_celeba.zip", "w", kind) as archive:
            archive.mkdir("img_align_celeba")
            for path in sorted(celeba.glob("img_align_celeba/*")):
                archive.write(path, f"img_align_celeba/{path.name}")
                archive.writestr(f"__MACOSX/img_align_celeba/._{path.name}", b"rubbish")
        given = source / "img_align_celeba.zip" if layout == "zip" else source
    else:
        name = {"kaggle": "img_align_celeba/img_align_celeba", "official": "Img/img_align_celeba"}
        images = source / name.get(layout, "img_align_celeba")
        shutil.copytree(celeba / "img_align_celeba", images)
        given = source
        if layout == "link to the images":  # its target may lie anywhere
            given = source / "link"
            given.symlink_to(images.rename(tmp_path / "elsewhere"))
    if layout == "official":
        (source / "Anno").mkdir()
        (source / "Eval").mkdir()
        for path in source.glob("list_*"):
            path.rename(source / ("Eval" if "partition" in path.name else "Anno") / path.name)
    result = prepare(given, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert checksums(tmp_path / "out") == checksums(shards)


def zip_of(path: Path, members: list[tuple[str, Path | bytes]]) -> Path:
    """A zip with these members under exactly these names, one name twice if it is listed twice."""
    with warnings.catch_warnings(), zipfile.ZipFile(path, "w") as archive:
        warnings.simplefilter("ignore")  # zipfile's about a name that is there already
        for name, content in members:
            archive.writestr(name, content if isinstance(content, bytes) else content.read_bytes())
    return path


def under(celeba: Path, form: str) -> list[tuple[str, Path | bytes]]:
    """All images of `celeba`, named in a zip as `form` says."""
    return [(form.format(path.name), path) for path in sorted(celeba.glob("img_align_celeba/*"))]


WRONG = "img_celeba/{}"  # the uncropped pictures, which have the same names


@pytest.mark.parametrize(
    "forms",
    [
        ("img_align_celeba/{}", WRONG),
        ("Img/img_align_celeba/{}", "Img/" + WRONG),
        ("img_align_celeba/img_align_celeba/{}", WRONG),
        ("CelebA\\Img\\img_align_celeba\\{}", "CelebA\\Img\\img_celeba\\{}"),
        ("img_align_celeba\\{}", "figures/{}"),
        ("./img_align_celeba/{}", "./" + WRONG),
        ("./{}", ""),
        ("img_align_celeba /{} ", ""),
        ("somewhere/else/{}", ""),
    ],
    ids=["beside", "official", "kaggle", "windows", "figures", "with a dot", "no folder", "blanks", "another folder"],
)
def test_from_a_zip_come_the_aligned_pictures_and_no_others(
    celeba: Path, shards: Path, tmp_path: Path, forms: tuple[str, str]
) -> None:
    wrong = [(forms[1].format(path.name), jpeg(5)) for path in sorted(celeba.glob("img_align_celeba/*")) if forms[1]]
    write_annotations(tmp_path)
    path = zip_of(tmp_path / "img_align_celeba.zip", [*under(celeba, forms[0]), *wrong])
    result = prepare(path, tmp_path / "out")
    assert result.returncode == 0, result.stderr
    assert checksums(tmp_path / "out") == checksums(shards)


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ("a/img_align_celeba/{}", ("img_align_celeba/", "a/img_align_celeba/")),
        ("img_align_celeba/{}", ("img_align_celeba/", "000001.jpg", "twice")),
        ("img_align_celeba\\{}", ("img_align_celeba/000001.jpg", "img_align_celeba\\000001.jpg", "the same name")),
    ],
    ids=["two folders", "one name twice", "two separators"],
)
def test_a_zip_in_which_a_name_means_two_files_is_refused(
    celeba: Path, tmp_path: Path, more: str, said: tuple[str, ...]
) -> None:
    write_annotations(tmp_path)
    path = zip_of(tmp_path / "all.zip", [*under(celeba, "img_align_celeba/{}"), (more.format("000001.jpg"), jpeg(5))])
    line = refused(prepare(path, tmp_path / "out"))
    assert str(path) in line and all(part in line for part in said), line


def test_a_zip_of_several_folders_none_of_which_is_the_aligned_one_is_refused(celeba: Path, tmp_path: Path) -> None:
    write_annotations(tmp_path)
    path = zip_of(tmp_path / "all.zip", [*under(celeba, "faces/{}"), ("000001.jpg", jpeg(5))])
    line = refused(prepare(path, tmp_path / "out"))
    assert "faces/" in line and "its top level" in line and "--source" in line


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("names", [("000001.jpg", "000001.JPG"), ("img.jpg", "IMG.jpg")])
def test_names_that_differ_only_in_case_are_refused(
    celeba: Path, tmp_path: Path, kind: str, names: tuple[str, str]
) -> None:
    write_annotations(tmp_path)
    if kind == "zip":
        zip_of(tmp_path / "img_align_celeba.zip", [(f"img_align_celeba/{name}", jpeg(5)) for name in names])
    else:
        (tmp_path / "img_align_celeba").mkdir()
        for name in names:
            (tmp_path / "img_align_celeba" / name).write_bytes(jpeg(5))
    line = refused(prepare(tmp_path, tmp_path / "out"))
    assert all(name in line for name in names) and "differ only in case" in line


@pytest.mark.parametrize("name", ["000001.JPG", "000001.jpg "])
def test_a_name_that_is_not_spelt_as_in_the_tables_is_told(copy: Path, tmp_path: Path, name: str) -> None:
    (copy / "img_align_celeba" / "000001.jpg").rename(copy / "img_align_celeba" / name)
    assert f"{name!r} is no name for an image" in refused(prepare(copy, tmp_path / "out"))


# --- several places -----------------------------------------------------------------------------------------------


def test_a_folder_beside_its_own_zip_is_taken_and_one_beside_another_zip_is_refused(
    copy: Path, shards: Path, tmp_path: Path
) -> None:
    path = zip_of(copy / "img_align_celeba.zip", under(copy, "img_align_celeba/{}"))
    assert prepare(copy, tmp_path / "out").returncode == 0
    assert checksums(tmp_path / "out") == checksums(shards)
    zip_of(path, [(name, jpeg(5)) for name, _ in under(copy, "img_align_celeba/{}")])
    line = refused(prepare(copy, tmp_path / "other"))
    assert str(path) in line and str(copy / "img_align_celeba") in line and "000001.jpg" in line
    assert prepare(copy / "img_align_celeba", tmp_path / "other").returncode == 0
    assert checksums(tmp_path / "other") == checksums(shards)


def test_a_zip_that_was_unpacked_in_part_is_not_mixed_up_with_its_folder(copy: Path, tmp_path: Path) -> None:
    path = zip_of(copy / "img_align_celeba.zip", under(copy, "img_align_celeba/{}"))
    (copy / "img_align_celeba" / "000061.jpg").unlink()
    line = refused(prepare(copy, tmp_path / "out"))
    assert str(path) in line and "000061.jpg" in line
    path.write_bytes(path.read_bytes()[:-100])  # of a damaged zip nothing can be meant
    assert "1 of them are missing" in refused(prepare(copy, tmp_path / "out"))


def test_kaggles_nested_folder_is_refused_where_the_outer_one_holds_other_pictures(copy: Path, tmp_path: Path) -> None:
    outer = copy / "img_align_celeba"
    shutil.copytree(outer, outer / "img_align_celeba")
    assert prepare(copy, tmp_path / "same").returncode == 0
    (outer / "img_align_celeba" / "000002.jpg").write_bytes(jpeg(5))
    for source in (copy, outer):
        line = refused(prepare(source, tmp_path / "out"))
        assert f"{outer} " in line and str(outer / "img_align_celeba") in line and "000002.jpg" in line


def test_two_tables_of_one_name_that_differ_are_refused(copy: Path, shards: Path, tmp_path: Path) -> None:
    (copy / "Anno").mkdir()
    table = copy / "Anno" / "list_attr_celeba.txt"
    shutil.copy(copy / table.name, table)
    assert prepare(copy, tmp_path / "out").returncode == 0
    table.write_text(table.read_text().replace("000001.jpg  1", "000001.jpg -1"))
    line = refused(prepare(copy, tmp_path / "other"))
    assert str(table) in line and str(copy / table.name) in line


# --- zips in parts ------------------------------------------------------------------------------------------------


@pytest.fixture
def split(celeba: Path, tmp_path: Path) -> Path:
    """A folder with CelebA's tables and its zip in parts, as `zip -s` makes them."""
    if not shutil.which("zip"):
        pytest.skip("needs the command zip")
    write_annotations(tmp_path / "split")
    make = ["zip", "-q", "-r", "-s", "64k", tmp_path / "split" / "img_align_celeba.zip", "img_align_celeba"]
    subprocess.run(make, cwd=celeba, check=True)
    assert (tmp_path / "split" / "img_align_celeba.z01").exists()
    return tmp_path / "split"


@pytest.mark.parametrize("given", ["", "img_align_celeba.zip", "img_align_celeba.z01", "alone", "cut"])
def test_a_part_of_a_split_zip_says_how_to_join_them(shards: Path, split: Path, tmp_path: Path, given: str) -> None:
    last, whole = split / "img_align_celeba.zip", split / "img_align_celeba-whole.zip"
    if given == "alone":
        last.unlink()
    if given == "cut":
        last.write_bytes(last.read_bytes()[:-10])
    line = refused(prepare(split / (given if given.startswith("img") else ""), tmp_path / "out"))
    assert "is a part of a split zip" in line and "damaged" not in line
    assert f"zip -s 0 {last} --out {whole}" in line
    if given in ("", "img_align_celeba.zip"):
        subprocess.run(["zip", "-q", "-s", "0", last, "--out", whole], check=True)
        assert prepare(whole, tmp_path / "out").returncode == 0
        assert checksums(tmp_path / "out") == checksums(shards)


@pytest.mark.parametrize("given", ["", "img_align_celeba.zip.001"])
def test_a_zip_cut_into_pieces_says_how_to_join_them(celeba: Path, tmp_path: Path, given: str) -> None:
    write_annotations(tmp_path)
    path = zip_of(tmp_path / "img_align_celeba.zip", under(celeba, "img_align_celeba/{}"))
    content = path.read_bytes()
    for number, piece in enumerate((content[:5000], content[5000:]), start=1):
        (tmp_path / f"{path.name}.{number:03d}").write_bytes(piece)
    path.unlink()
    line = refused(prepare(tmp_path / given, tmp_path / "out"))
    assert "is a part of a split zip" in line and f"cat {path}.* > {path}" in line


@pytest.mark.parametrize("comma", [False, True], ids=["official", "kaggle"])
def test_line_ends_of_windows_and_a_last_line_without_one_change_nothing(
    copy: Path, shards: Path, tmp_path: Path, comma: bool
) -> None:
    for path in copy.glob("list_*.txt"):
        path.unlink()
    write_annotations(copy, comma)
    for path in copy.glob("list_*.*"):
        path.write_bytes(path.read_bytes().rstrip().replace(b"\n", b"\r\n"))
    assert prepare(copy, tmp_path / "out").returncode == 0
    assert checksums(tmp_path / "out") == checksums(shards)


def test_all_splits_together_need_no_partition_file(copy: Path, tmp_path: Path) -> None:
    (copy / "list_eval_partition.txt").unlink()
    (copy / "synthetic.json").write_text("{}")
    assert prepare(copy, tmp_path / "out", "--split", "all", "--no-decode-check").returncode == 0
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["samples"], manifest["dataset"]) == (NUM_IMAGES, "synthetic")


# --- interruption and repetition --------------------------------------------------------------------------------------


def test_a_second_call_says_that_it_is_done_and_other_arguments_are_refused(
    celeba: Path, shards: Path, tmp_path: Path
) -> None:
    out = Path(shutil.copytree(shards, tmp_path / "out"))
    before = {path: path.stat().st_mtime_ns for path in out.iterdir()}
    again = prepare(celeba, out)
    assert again.returncode == 0 and "already done, 48 images in 5 shards" in again.stdout
    assert f"data_prep.verify {out} --decode" in again.stdout, "nothing was decoded this time, which it should say"
    assert "--seed 0, not 1" in refused(prepare(celeba, out, "--seed", 1))
    assert "--split train, not valid" in refused(prepare(celeba, out, "--split", "valid"))
    assert "--samples-per-shard" in refused(prepare(celeba, out, "--samples-per-shard", 11))
    assert before == {path: path.stat().st_mtime_ns for path in out.iterdir()}


def test_shards_of_other_images_under_the_same_names_are_not_taken_for_done(copy: Path, tmp_path: Path) -> None:
    assert prepare(copy, tmp_path / "out", "--no-decode-check").returncode == 0
    with (copy / "img_align_celeba" / "000001.jpg").open("ab") as file:
        file.write(b"more")
    assert "other images" in refused(prepare(copy, tmp_path / "out"))


def test_a_kill_leaves_nothing_finished_and_a_second_call_completes_to_the_same_bytes(
    celeba: Path, tmp_path: Path
) -> None:
    arguments = ("--split", "all", "--samples-per-shard", 1, "--workers", 2)
    assert prepare(celeba, tmp_path / "straight", *arguments).returncode == 0
    out = tmp_path / "out"
    call = command("celeba", "--source", celeba, "--out", out, *arguments)
    process = subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while len(list(out.glob(".*.record"))) < 5:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.001)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (out / "manifest.json").exists()
    finished = {path.name for path in out.glob("*.tar")}
    assert 5 <= len(finished) < NUM_IMAGES
    (out / ".celeba-all-000060.tar.1.tmp").write_bytes(b"left behind")
    (out / ".somebody-elses.tmp").mkdir()
    (out / ".notes.txt.1.tmp").write_bytes(b"and not ours")
    damaged = out / next(out.glob(".*.record")).name[1:].removesuffix(".record")
    damaged.write_bytes(damaged.read_bytes()[:-512])
    kept = {path: path.stat().st_mtime_ns for path in out.glob("*.tar") if path != damaged}
    assert prepare(celeba, out, *arguments).returncode == 0
    (out / ".somebody-elses.tmp").rmdir()
    (out / ".notes.txt.1.tmp").unlink()
    assert checksums(out) == checksums(tmp_path / "straight")
    rewritten = [path.name for path, changed in kept.items() if path.stat().st_mtime_ns != changed]
    assert len(rewritten) <= 4, "finished shards should be kept (a worker may have been between a tar and its record)"


def begin(source: Path, out: Path, workers: int) -> tuple[subprocess.Popen[bytes], list[int]]:
    """A preparation that has written its first shard, and its worker processes."""
    arguments = ("--source", source, "--out", out, "--split", "all", "--samples-per-shard", 1, "--workers", workers)
    process = subprocess.Popen(command("celeba", *arguments), stdout=subprocess.DEVNULL)
    while not list(out.glob(".*.record")):
        assert process.poll() is None, "it ended too soon"
        time.sleep(0.001)
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    spawned = [int(child) for child in children if b"spawn_main" in Path(f"/proc/{child}/cmdline").read_bytes()]
    return process, spawned


def runs(process: int) -> bool:
    """Whether a process is there and not merely waiting for its parent to take note of its end."""
    try:
        return Path(f"/proc/{process}/cmdline").read_bytes() != b""
    except OSError:
        return False


def test_workers_end_when_the_command_is_killed(celeba: Path, tmp_path: Path) -> None:
    process, workers = begin(celeba, tmp_path / "out", workers=4)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 10
    while any(runs(worker) for worker in workers):
        assert time.monotonic() < deadline, "workers outlive the command"
        time.sleep(0.01)
    assert len(workers) == 4


def test_a_worker_that_stands_still_does_not_keep_others_out_of_the_folder(celeba: Path, tmp_path: Path) -> None:
    process, workers = begin(celeba, tmp_path / "out", workers=2)
    for worker in workers:
        os.kill(worker, signal.SIGSTOP)
    process.kill()
    process.wait()
    try:
        again = ("--source", celeba, "--out", tmp_path / "out", "--split", "all", "--samples-per-shard", 1)
        assert run("celeba", *again).returncode == 0
    finally:
        for worker in workers:
            with contextlib.suppress(ProcessLookupError):  # of a session of its own, the system ends it itself
                os.kill(worker, signal.SIGKILL)


def test_an_unfinished_folder_refuses_another_preparation(copy: Path, tmp_path: Path) -> None:
    bad = copy / "img_align_celeba" / "000003.jpg"
    good = bad.read_bytes()
    bad.write_bytes(good[:200])
    refused(prepare(copy, tmp_path / "out", "--samples-per-shard", 2, "--workers", 1))
    assert "unfinished" in refused(prepare(copy, tmp_path / "out", "--samples-per-shard", 2, "--seed", 1))
    bad.write_bytes(good)
    assert prepare(copy, tmp_path / "out", "--samples-per-shard", 2).returncode == 0


# --- bad input --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"", "empty"), (b"GIF89a" * 20, "not a JPEG"), (jpeg(3)[:30], "header"), (jpeg(3)[:-150], "truncated")],
    ids=["empty", "another format", "cut in the header", "cut in the image"],
)
def test_a_damaged_image_is_named_and_refused_or_left_out_and_listed(
    copy: Path, tmp_path: Path, content: bytes, reason: str
) -> None:
    (copy / "img_align_celeba" / "000003.jpg").write_bytes(content)
    line = refused(prepare(copy, tmp_path / "out"))
    assert "000003.jpg" in line and reason in line and "--skip-damaged" in line
    assert not (tmp_path / "out" / "manifest.json").exists()
    result = prepare(copy, tmp_path / "out", "--skip-damaged")
    assert result.returncode == 0 and "000003.jpg" in result.stdout
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["skipped"], manifest["samples"]) == (["000003.jpg"], 47)
    if reason == "empty":
        assert run("verify", tmp_path / "out").returncode == 0
        line = refused(prepare(copy, tmp_path / "out"))
        assert "without 1 damaged image: 000003.jpg" in line and "--skip-damaged" in line
        assert "already done, 47 images" in prepare(copy, tmp_path / "out", "--skip-damaged").stdout


def test_an_image_damaged_inside_the_zip_is_named(celeba: Path, tmp_path: Path) -> None:
    write_annotations(tmp_path)
    path = tmp_path / "img_align_celeba.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for image in sorted(celeba.glob("img_align_celeba/*")):
            archive.write(image, f"img_align_celeba/{image.name}")
        offset = archive.getinfo("img_align_celeba/000007.jpg").header_offset
    content = bytearray(path.read_bytes())
    content[offset + 600] ^= 1
    path.write_bytes(content)
    line = refused(prepare(path, tmp_path / "out", "--no-decode-check"))
    assert "000007.jpg" in line and "CRC" in line


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"<!DOCTYPE html><html><head><title>Google Drive - Quota exceeded</title>", "web page"),
        (b"\n<html>", "web page"),
        (b"PK\x03\x04" + b"\0" * 1000, "truncated"),
        (b"", "not a zip"),
        (b"rubbish" * 100, "not a zip"),
    ],
    ids=["quota page", "page after a blank", "cut zip", "empty", "rubbish"],
)
def test_what_is_no_zip_is_refused_with_its_reason(tmp_path: Path, content: bytes, said: str) -> None:
    write_annotations(tmp_path)
    (tmp_path / "img_align_celeba.zip").write_bytes(content)
    line = refused(prepare(tmp_path / "img_align_celeba.zip", tmp_path / "out"))
    assert said in line and "download it again" in line


def test_missing_images_are_counted_and_the_first_is_named(copy: Path, tmp_path: Path) -> None:
    for number in (5, 9):
        (copy / "img_align_celeba" / f"{number:06d}.jpg").unlink()
    line = refused(prepare(copy, tmp_path / "out"))
    assert f"lists {NUM_IMAGES} images, and 2 of them are missing, the first is 000005.jpg" in line


def test_images_without_a_row_are_counted_and_the_first_is_named(copy: Path, tmp_path: Path) -> None:
    (copy / "img_align_celeba" / "000100.jpg").write_bytes(jpeg(1))
    assert "no row for 1 of the 62 images" in refused(prepare(copy, tmp_path / "out"))


@pytest.mark.parametrize(
    ("file", "old", "new", "said"),
    [
        ("list_attr_celeba.txt", f"{NUM_IMAGES}\n", "99\n", "says that it has 99 rows and has 61"),
        ("list_attr_celeba.txt", f"{NUM_IMAGES}\n", "<!doctype html>\n", "web page"),
        ("list_attr_celeba.txt", f"{NUM_IMAGES}\n", "", "should start with a line that holds the count"),
        ("list_attr_celeba.txt", "000002.jpg", "000001.jpg", "twice"),
        ("list_attr_celeba.txt", "000001.jpg  1", "000001.jpg  5", "row of 000001.jpg is malformed"),
        ("list_attr_celeba.txt", "000001.jpg  1", "000001.jpg  ", "row of 000001.jpg is malformed"),
        ("list_eval_partition.txt", "000001.jpg", "000001", "1 of them are missing"),
        ("list_eval_partition.txt", "000001.jpg 0", "000001.jpg 7", "is in split '7'"),
        ("list_bbox_celeba.txt", " 72 ", " x ", "is malformed"),
    ],
)
def test_a_malformed_annotation_file_is_named(
    copy: Path, tmp_path: Path, file: str, old: str, new: str, said: str
) -> None:
    text = (copy / file).read_text()
    assert old in text
    (copy / file).write_text(text.replace(old, new, 1))
    line = refused(prepare(copy, tmp_path / "out", "--no-decode-check"))
    assert said in line and file.removesuffix(".txt") in line


@pytest.mark.parametrize("file", ["list_attr_celeba.txt", "list_eval_partition.txt"])
def test_a_missing_annotation_file_is_named_and_where_to_get_it(copy: Path, tmp_path: Path, file: str) -> None:
    (copy / file).unlink()
    line = refused(prepare(copy, tmp_path / "out"))
    assert line.startswith(f"error: {file}") and "mmlab.ie.cuhk.edu.hk" in line


def test_a_missing_source_says_where_to_get_celeba(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "archive.zip", "w") as kaggle:
        kaggle.writestr("img_align_celeba/img_align_celeba/000001.jpg", jpeg(1))
        kaggle.writestr("list_attr_celeba.csv", "image_id,Smiling\n000001.jpg,1\n")
    line = refused(prepare(tmp_path / "archive.zip", tmp_path / "out"))
    assert "list_attr_celeba.txt (or .csv) is missing" in line and "unpack it first" in line
    for source in (tmp_path / "none", tmp_path):
        assert "mmlab.ie.cuhk.edu.hk/projects/CelebA.html" in refused(prepare(source, tmp_path / "out"))
    assert not (tmp_path / "out").exists()


def test_a_split_without_images_is_refused(copy: Path, tmp_path: Path) -> None:
    partition = copy / "list_eval_partition.txt"
    partition.write_text("".join(f"{number:06d}.jpg 0\n" for number in range(1, NUM_IMAGES + 1)))
    assert "no image belongs to the split 'test'" in refused(prepare(copy, tmp_path / "out", "--split", "test"))


def test_an_output_that_cannot_be_written_is_refused(celeba: Path, shards: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert "cannot be used as a folder" in refused(prepare(celeba, tmp_path / "file"))
    assert "cannot be used as a folder" in refused(prepare(celeba, tmp_path / "file" / "below"))
    if os.getuid() != 0:  # root may write everywhere
        (tmp_path / "locked").mkdir(mode=0o500)
        assert "cannot be written to" in refused(prepare(celeba, tmp_path / "locked"))
        finished = shutil.copytree(shards, tmp_path / "finished")
        finished.chmod(0o500)
        assert "already done" in prepare(celeba, finished).stdout


def test_a_source_that_cannot_be_read_is_one_line(celeba: Path, tmp_path: Path) -> None:
    assert "File name too long" in refused(prepare(tmp_path / ("x" * 300), tmp_path / "out"))
    assert "File name too long" in refused(run("verify", tmp_path / ("x" * 300)))
    if os.getuid() != 0:
        (tmp_path / "locked").mkdir(mode=0o000)
        assert "Permission denied" in refused(prepare(tmp_path / "locked" / "celeba", tmp_path / "out"))
        assert "Permission denied" in refused(run("verify", tmp_path / "locked" / "shards"))


def test_a_full_disk_is_one_line_and_leaves_nothing_that_looks_finished(celeba: Path, tmp_path: Path) -> None:
    limited = "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (8192, 8192)); "
    limited += "sys.argv = sys.argv[1:]; runpy.run_module('data_prep.celeba', run_name='__main__', alter_sys=True)"
    arguments = ("celeba", "--source", str(celeba), "--out", str(tmp_path / "out"))
    call = [sys.executable, "-c", limited, *arguments]
    line = refused(subprocess.run(call, capture_output=True, text=True, timeout=100, check=False))
    assert "no room to write" in line
    assert list((tmp_path / "out").iterdir()) == []


@pytest.mark.parametrize("option", ["--samples-per-shard", "--workers", "--seed"])
def test_numbers_that_make_no_sense_are_refused(celeba: Path, tmp_path: Path, option: str) -> None:
    assert f"argument {option}: a whole number" in refused(prepare(celeba, tmp_path / "out", option, -1))


# --- verify -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def damaged(shards: Path, tmp_path: Path) -> Path:
    """A copy of the shards to damage."""
    return Path(shutil.copytree(shards, tmp_path / "damaged"))


def found_by_verify(folder: Path) -> str:
    result = run("verify", folder, "--workers", 1)
    assert result.returncode == 1 and not result.stderr, result
    return result.stdout


def test_verify_is_content_with_good_shards(shards: Path) -> None:
    result = run("verify", shards, "--decode")
    assert result.returncode == 0 and "all right, 48 images in 5 shards" in result.stdout


def test_verify_names_a_flipped_byte_a_truncated_tar_a_missing_and_an_extra_shard(damaged: Path) -> None:
    tars = sorted(damaged.glob("*.tar"))
    content = bytearray(tars[0].read_bytes())
    content[1000] ^= 1
    tars[0].write_bytes(content)
    whole = tars[1].read_bytes()
    tars[1].write_bytes(whole[: len(whole) // 2])
    tars[2].unlink()
    tars[3].with_suffix(".idx").write_text("v1.2 0\n")
    shutil.copy(tars[4], damaged / "celeba-train-000005.tar")
    said = found_by_verify(damaged)
    assert f"{tars[0]}: damaged" in said
    assert f"{tars[1]}: truncated, it has {len(whole) // 2} bytes and the manifest says {len(whole)}" in said
    assert f"{tars[2]}: missing" in said
    assert f"{tars[3].with_suffix('.idx')}: damaged" in said and "does not describe" in said
    assert f"{damaged / 'celeba-train-000005.tar'}: is not in the manifest" in said


def test_verify_names_an_edited_and_a_missing_manifest(damaged: Path) -> None:
    manifest = damaged / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"seed": 0', '"seed": 1'))
    assert "edited" in found_by_verify(damaged)
    manifest.unlink()
    assert "unfinished" in found_by_verify(damaged)


class RunsThere:
    """Calls a function in the process that it is sent to, and arrives as what that returned."""

    def __init__(self, *call: object) -> None:
        self.call = call

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return self.call[0], self.call[1:]


def test_verify_leaves_interrupts_to_the_command_and_says_that_a_worker_was_killed(shards: Path) -> None:
    from data_prep.verify import folder_problems
    from dcgan_dist.data.shard_format import read_manifest

    interrupted: Any = RunsThere(signal.raise_signal, signal.SIGINT)
    assert folder_problems(shards, read_manifest(shards), decode=interrupted, workers=2) == []
    killed: Any = RunsThere(os._exit, 1)
    with pytest.raises(UserError, match="killed"):
        folder_problems(shards, read_manifest(shards), decode=killed, workers=2)


def test_verify_of_no_folder_is_a_usage_error(tmp_path: Path) -> None:
    assert "no such folder" in refused(run("verify", tmp_path / "none"))
