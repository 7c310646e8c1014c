"""Any images to shards, from every kind of source, each made by the library that its users have."""

from __future__ import annotations

import io
import json
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.data.decode_dali import decode_with_dali
from dcgan_dist.data.decode_pillow import decode_with_pillow
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from tests.running import Finished, read_status, run_module, run_train, user_errors
from tests.shard_folders import jpeg

NAMES = [f"{label}/{label}{number}.jpg" for label in ("cats", "dogs") for number in range(6)]
CONTENTS = {name: jpeg(70 + number, 90, seed=number) for number, name in enumerate(NAMES)}
LABELS = {name: name.split("/")[0] for name in NAMES}


def prepare(source: Path, out: Path, *arguments: object) -> Finished:
    return run_module("data_prep.images", "--source", source, "--out", out, "--workers", 1, *arguments)


def stored(folder: Path) -> dict[str, tuple[str, bytes, dict[str, Any]]]:
    """What the shards hold: by the image's name its extension, bytes and annotations."""
    found: dict[str, tuple[str, bytes, dict[str, Any]]] = {}
    for path in sorted(folder.glob("*.tar")):
        with tarfile.open(path) as tar:
            members = {member.name: tar.extractfile(member).read() for member in tar}  # type: ignore[union-attr]
        for name, content in members.items():
            key, extension = name.split(".")
            if extension != "json":
                described = json.loads(members[f"{key}.json"])
                assert described["file"] not in found, "an image is there twice"
                found[described["file"]] = (extension, content, described)
    return found


def folder(path: Path) -> Path:
    for name, content in CONTENTS.items():
        (path / "pets" / name).parent.mkdir(parents=True, exist_ok=True)
        (path / "pets" / name).write_bytes(content)
    (path / "pets" / "readme.txt").write_text("no image")
    (path / "pets" / ".hidden.jpg").write_bytes(b"")
    return path / "pets"


def zipped(path: Path) -> Path:
    with zipfile.ZipFile(path / "pets.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in CONTENTS.items():
            archive.writestr(name, content)
        archive.writestr("__MACOSX/cats/._cats0.jpg", b"")
    return path / "pets.zip"


def stylegan_zip(path: Path) -> Path:
    with zipfile.ZipFile(path / "pets.zip", "w") as archive:
        renamed = {name: f"00000/img{number:08d}.jpg" for number, name in enumerate(NAMES)}
        for name, content in CONTENTS.items():
            archive.writestr(renamed[name], content)
        labels = [[renamed[name], int(label == "dogs")] for name, label in LABELS.items()]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path / "pets.zip"


def hugging_face_parquet(path: Path) -> Path:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    (path / "pets" / "data").mkdir(parents=True)
    features = {"image": {"_type": "Image"}, "label": {"names": ["cats", "dogs"], "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for file, names in (("train-00000-of-00002", NAMES[:7]), ("train-00001-of-00002", NAMES[7:])):
        columns = {
            "image": [{"bytes": CONTENTS[name], "path": name.split("/")[1]} for name in names],
            "label": [int(LABELS[name] == "dogs") for name in names],
            "caption": [f"a picture of {name}" for name in names],
        }
        table = pyarrow.table(columns).replace_schema_metadata(metadata)
        parquet.write_table(table, path / "pets" / "data" / f"{file}.parquet", row_group_size=3)
    return path / "pets"


def webdataset_tars(path: Path) -> Path:
    webdataset = pytest.importorskip("webdataset")
    (path / "pets").mkdir()
    for number, names in enumerate((NAMES[:5], NAMES[5:])):
        with webdataset.TarWriter(str(path / "pets" / f"pets-{number}.tar")) as tar:
            for name in names:
                key = name.replace("/", "-").removesuffix(".jpg")
                sample = {"__key__": key, "jpg": CONTENTS[name], "cls": LABELS[name], "json": {"caption": name}}
                tar.write(sample)
    return path / "pets"


def lsun_lmdb(path: Path) -> Path:
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(path / "pets"), map_size=1 << 26) as base, base.begin(write=True) as transaction:
        for name, content in CONTENTS.items():
            transaction.put(name.encode(), content)
    return path / "pets"


SOURCES: dict[str, Callable[[Path], Path]] = {
    "a folder of images": folder,
    "a zip of images": zipped,
    "a zip of images, labelled": stylegan_zip,
    "a folder of Parquet files": hugging_face_parquet,
    "a folder of WebDataset tars": webdataset_tars,
    "an LMDB": lsun_lmdb,
}


@pytest.mark.parametrize("kind", SOURCES)
def test_every_source_is_recognised_packed_verified_and_trained_on(kind: str, tmp_path: Path) -> None:
    source, out = SOURCES[kind](tmp_path), tmp_path / "out"
    result = prepare(source, out, "--samples-per-shard", 5)
    assert result.returncode == 0, result
    assert f"{source}: {kind.partition(',')[0]}, 12 images" in result.stdout
    found = stored(out)
    assert sorted(content for _, content, _ in found.values()) == sorted(CONTENTS.values())
    by_content = {content: name for name, content in CONTENTS.items()}
    for extension, content, described in found.values():
        assert extension == "jpg"
        name = by_content[content]
        if kind != "an LMDB":  # which knows nothing of classes
            label = described["class"]
            assert described["attributes"][label]
            assert label in (LABELS[name], str(int(LABELS[name] == "dogs")))
        if kind in ("a folder of Parquet files", "a folder of WebDataset tars"):
            assert name in described["caption"]
    assert run_module("data_prep.verify", out, "--decode").returncode == 0
    assert sorted(path.name for path in out.iterdir() if path.suffix not in (".tar", ".idx")) == ["manifest.json"]
    again = prepare(source, out, "--samples-per-shard", 5)
    assert "already done, 12 images" in again.stdout, again
    settings = ("--data.image_size", 32, "--model.base_channels", 4, "--train.precision", "fp32")
    limits = ("--data.batch_size_per_rank", 4, "--train.total_images", 12, "--track.report", "false")
    trained = run_train(1, "--data.shards", out, "--run.dir", tmp_path / "run", *settings, *limits)
    assert trained.returncode == 0, trained
    assert read_status(tmp_path / "run")["status"] == "done"


def test_parquets_own_splits_are_kept(tmp_path: Path) -> None:
    source = hugging_face_parquet(tmp_path)
    (source / "data" / "train-00001-of-00002.parquet").rename(source / "data" / "validation-00000-of-00001.parquet")
    assert prepare(source, tmp_path / "train").returncode == 0
    assert prepare(source, tmp_path / "valid", "--split", "valid").returncode == 0
    assert len(stored(tmp_path / "train")) == 7
    assert len(stored(tmp_path / "valid")) == 5


def test_a_held_out_image_stays_held_out_when_the_data_set_grows(tmp_path: Path) -> None:
    source = folder(tmp_path)
    (source / "dogs" / "dogs5.jpg").unlink()
    options = ("--hold-out", 0.4, "--split", "valid")
    assert prepare(source, tmp_path / "before", *options).returncode == 0
    folder(tmp_path)
    assert prepare(source, tmp_path / "after", *options).returncode == 0
    assert prepare(source, tmp_path / "train", *options[:2]).returncode == 0
    before, after, train = (set(stored(tmp_path / name)) for name in ("before", "after", "train"))
    assert before <= after
    assert not after & train
    assert len(after | train) == 12


# --- one rule for each odd kind of image ------------------------------------------------------------------------------


def picture(mode: str = "RGB", seed: int = 3) -> Image.Image:
    return Image.open(io.BytesIO(jpeg(60, 80, seed=seed))).convert(mode)


def file_of(image: Image.Image, kind: str, **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def half_transparent() -> Image.Image:
    image = picture("RGBA")
    image.putalpha(Image.fromarray((np.arange(60 * 80).reshape(60, 80) % 256).astype(np.uint8)))
    return image


def turned_by_camera() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return file_of(picture(), "JPEG", exif=exif)


def sixteen_bits() -> Image.Image:
    return Image.fromarray((np.arange(60 * 80).reshape(60, 80) * 13).astype(np.uint16))


def over(colour: int) -> np.ndarray:
    behind = Image.new("RGB", (80, 60), (colour,) * 3)
    image = half_transparent()
    behind.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return np.asarray(behind)


RGB = np.asarray(picture())
ODD: dict[str, tuple[bytes, str, np.ndarray]] = {
    "plain.jpg": (file_of(picture(), "JPEG"), "jpg", np.asarray(Image.open(io.BytesIO(file_of(picture(), "JPEG"))))),
    "plain.png": (file_of(picture(), "PNG"), "png", RGB),
    "plain.webp": (file_of(picture(), "WEBP", lossless=True), "webp", RGB),
    "misnamed.jpg": (file_of(picture(), "PNG"), "png", RGB),
    "grey.png": (file_of(picture("L"), "PNG"), "png", np.asarray(picture("L").convert("RGB"))),
    "picture.bmp": (file_of(picture(), "BMP"), "png", RGB),
    "picture.tiff": (file_of(picture(), "TIFF"), "png", RGB),
    "palette.png": (file_of(picture("P"), "PNG"), "png", np.asarray(picture("P").convert("RGB"))),
    "frames.gif": (
        file_of(picture("P"), "GIF", save_all=True, append_images=[picture("P", seed=9)]),
        "png",
        np.asarray(picture("P").convert("RGB")),
    ),
    "sixteen.png": (
        file_of(sixteen_bits(), "PNG"),
        "png",
        np.repeat((np.asarray(sixteen_bits()) / 257).round().astype(np.uint8)[..., None], 3, 2),
    ),
    "transparent.png": (file_of(half_transparent(), "PNG"), "png", over(255)),
    "transparent.webp": (file_of(half_transparent(), "WEBP", lossless=True, exact=True), "png", over(255)),
    "turned.jpg": (
        turned_by_camera(),
        "png",
        np.rot90(np.asarray(Image.open(io.BytesIO(turned_by_camera())).convert("RGB")), -1),
    ),
}


@pytest.fixture(scope="module")
def odd(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source = tmp_path_factory.mktemp("odd") / "source"
    source.mkdir()
    for name, (content, _, _) in ODD.items():
        (source / name).write_bytes(content)
    return source


def test_odd_images_are_stored_as_a_viewer_shows_them(odd: Path, tmp_path: Path) -> None:
    assert prepare(odd, tmp_path / "out").returncode == 0
    found = stored(tmp_path / "out")
    assert found.keys() == ODD.keys()
    for name, (content, extension, pixels) in ODD.items():
        assert found[name][0] == extension, name
        if name.split(".")[0] in ("plain", "misnamed"):
            assert found[name][1] == content, name
        seen = np.asarray(Image.open(io.BytesIO(found[name][1])).convert("RGB"))
        assert np.array_equal(seen, pixels), name


def test_both_decoders_read_them_alike(odd: Path, tmp_path: Path) -> None:
    assert prepare(odd, tmp_path / "out").returncode == 0
    shards = MappedShards(tmp_path / "out", read_manifest(tmp_path / "out"))
    batches, cpu = [range(len(shards))], torch.device("cpu")
    (by_pillow,) = decode_with_pillow(shards, batches, 32, "short_side", cpu, 1)
    (by_dali,) = decode_with_dali(shards, batches, 32, "short_side", cpu, 1)
    assert (by_pillow.int() - by_dali.int()).abs().max() <= 1


def test_a_background_is_what_transparency_shows(odd: Path, tmp_path: Path) -> None:
    assert prepare(odd, tmp_path / "out", "--background", "000000").returncode == 0
    content = stored(tmp_path / "out")["transparent.png"][1]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(content))), over(0))


def test_a_colour_profile_is_translated(tmp_path: Path) -> None:
    from PIL import ImageCms

    lab = ImageCms.ImageCmsProfile(ImageCms.createProfile("XYZ")).tobytes()
    (tmp_path / "source").mkdir()
    (tmp_path / "source" / "wrong.png").write_bytes(file_of(picture(), "PNG", icc_profile=b"no profile at all"))
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    (tmp_path / "source" / "srgb.png").write_bytes(file_of(picture(), "PNG", icc_profile=srgb))
    (tmp_path / "source" / "xyz.png").write_bytes(file_of(picture(), "PNG", icc_profile=lab))
    assert prepare(tmp_path / "source", tmp_path / "out").returncode == 0
    for name in ("wrong.png", "srgb.png", "xyz.png"):  # of the first and the last nothing can be made
        pixels = np.asarray(Image.open(io.BytesIO(stored(tmp_path / "out")[name][1])).convert("RGB"))
        assert pixels.shape == RGB.shape
        if name != "xyz.png":
            assert np.array_equal(pixels, RGB), name


def test_resized_ones_are_what_training_would_make_of_the_full_ones(odd: Path, tmp_path: Path) -> None:
    assert prepare(odd, tmp_path / "full").returncode == 0
    assert prepare(odd, tmp_path / "small", "--size", 32).returncode == 0
    pixels = []
    for name in ("full", "small"):
        shards = MappedShards(tmp_path / name, read_manifest(tmp_path / name))
        pixels += decode_with_pillow(shards, [range(len(shards))], 32, "short_side", torch.device("cpu"), 1)
    assert torch.equal(*pixels)
    assert {extension for extension, _, _ in stored(tmp_path / "small").values()} == {"png"}


def test_names_of_all_kinds_are_kept_and_none_is_lost(tmp_path: Path) -> None:
    names = [
        "with space.jpg",
        "quo'te\".jpg",
        "new\nline.jpg",
        "ünïcode 猫.jpg",
        "CASE.jpg",
        "case.jpg",
        "n" * 251 + ".jpg",
    ]
    (tmp_path / "source").mkdir()
    for number, name in enumerate(names):
        (tmp_path / "source" / name).write_bytes(jpeg(20, 20, seed=number))
    assert prepare(tmp_path / "source", tmp_path / "folder").returncode == 0
    with zipfile.ZipFile(tmp_path / "source.zip", "w") as archive:
        for name in names:
            archive.write(tmp_path / "source" / name, name)
    assert prepare(tmp_path / "source.zip", tmp_path / "zip").returncode == 0
    for made in ("folder", "zip"):
        assert set(stored(tmp_path / made)) == set(names), made


# --- what is left out, and mistakes -----------------------------------------------------------------------------------


def test_damaged_small_and_twin_images_are_counted_listed_and_left_out_as_asked(tmp_path: Path) -> None:
    source = folder(tmp_path)
    (source / "cats" / "cut.jpg").write_bytes(jpeg(40, 40)[:-200])
    (source / "cats" / "tiny.png").write_bytes(file_of(picture().resize((3, 2)), "PNG"))
    (source / "dogs" / "twin.jpg").write_bytes(CONTENTS["cats/cats0.jpg"])
    (line,) = user_errors(prepare(source, tmp_path / "out"))
    assert "cats/cut.jpg" in line and "--skip-damaged" in line
    result = prepare(source, tmp_path / "out", "--skip-damaged", "--filter", "min_size=10")
    assert result.returncode == 0, result
    assert "left out 1 small: cats/tiny.png" in result.stdout
    assert "left out 1 damaged: cats/cut.jpg" in result.stdout
    assert "1 images have the bytes of another" in result.stdout
    assert "dogs/twin.jpg (as cats/cats0.jpg)" in result.stdout
    options = ("--skip-damaged", "--filter", "min_size=10", "--skip-duplicates")
    result = prepare(source, tmp_path / "unique", *options)
    assert "left out 1 with the bytes of another: dogs/twin.jpg (as cats/cats0.jpg)" in result.stdout
    assert len(stored(tmp_path / "unique")) == 12


def test_celebas_layout_is_left_to_its_own_command(faces: Path, tmp_path: Path) -> None:
    result = prepare(faces, tmp_path / "out", "--split", "all")
    assert result.returncode == 0, result
    assert "CelebA's layout, packed as by data_prep.celeba" in result.stdout
    assert (
        run_module("data_prep.celeba", "--source", faces, "--out", tmp_path / "out", "--split", "all").returncode == 0
    )


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "file.txt").write_text("x")
    (tmp_path / "bad.zip").write_bytes(b"x")
    (tmp_path / "bad.tar").write_bytes(b"x" * 1024)
    (tmp_path / "bad.parquet").write_bytes(b"x")
    pets = folder(tmp_path)
    for source, options, said in (
        (tmp_path / "missing", (), "no such file or folder"),
        (tmp_path / "empty", (), "holds no images"),
        (tmp_path / "file.txt", (), "is no source of images"),
        (tmp_path / "bad.zip", (), "bad.zip"),
        (tmp_path / "bad.tar", (), "cannot be read as an uncompressed tar"),
        (tmp_path / "bad.parquet", (), "cannot be read as Parquet"),
        (pets, ("--split", "valid"), "--hold-out"),
        (pets, ("--hold-out", "2"), "--hold-out"),
        (pets, ("--background", "red"), "--background"),
        (pets, ("--filter", "64"), "min_size=64"),
    ):
        result = prepare(source, tmp_path / "out", *options)
        assert result.returncode == 2, result
        assert said in result.stderr.splitlines()[-1], result
        assert "Traceback" not in result.stderr


def test_parquet_that_only_names_its_images_says_what_to_do(tmp_path: Path) -> None:
    """As `to_parquet` of Hugging Face's datasets writes a data set of files."""
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    kind = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    images = pyarrow.array([{"bytes": None, "path": "/pictures/a cat.jpg"}], kind)
    parquet.write_table(pyarrow.table({"image": images}), tmp_path / "pets.parquet")
    (line,) = user_errors(prepare(tmp_path / "pets.parquet", tmp_path / "out"))
    assert "names the file /pictures/a cat.jpg in place of an image; give the folder of such files" in line


def test_several_images_of_a_sample_need_a_word_which_is_meant(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "pairs").mkdir()
    with webdataset.TarWriter(str(tmp_path / "pairs" / "a.tar")) as tar:
        for number, name in enumerate(NAMES):
            tar.write({"__key__": f"{number}", "left.jpg": CONTENTS[name], "right.jpg": jpeg(9, 9, seed=number)})
    (line,) = user_errors(prepare(tmp_path / "pairs", tmp_path / "out"))
    assert "several images" in line and "--image-key left.jpg" in line
    assert prepare(tmp_path / "pairs", tmp_path / "out", "--image-key", "left.jpg").returncode == 0
    assert len(stored(tmp_path / "out")) == 12


# --- tars that are adopted where they lie -----------------------------------------------------------------------------


def test_tars_made_elsewhere_are_trained_on_where_they_lie(tmp_path: Path) -> None:
    tars = webdataset_tars(tmp_path)
    before = {path.name: path.read_bytes() for path in tars.iterdir()}
    result = run_module("data_prep.adopt", "--source", tars, "--workers", 1)
    assert result.returncode == 0 and "adopted, 12 images in 2 tars" in result.stdout, result
    assert {path.name: path.read_bytes() for path in tars.glob("*.tar")} == before
    assert run_module("data_prep.verify", tars, "--decode").returncode == 0
    assert "already a folder of shards" in run_module("data_prep.adopt", "--source", tars).stdout
    settings = ("--data.image_size", 32, "--model.base_channels", 4, "--train.precision", "fp32")
    limits = ("--data.batch_size_per_rank", 4, "--train.total_images", 12, "--track.report", "false")
    trained = run_train(1, "--data.shards", tars, "--run.dir", tmp_path / "run", *settings, *limits)
    assert trained.returncode == 0, trained


def test_samples_without_annotations_can_be_adopted(tmp_path: Path) -> None:
    webdataset = pytest.importorskip("webdataset")
    (tmp_path / "tars").mkdir()
    with webdataset.TarWriter(str(tmp_path / "tars" / "a.tar")) as tar:
        for number, content in enumerate(CONTENTS.values()):
            tar.write({"__key__": f"{number:03d}", "jpeg": content, "cls": b"1"})
    assert run_module("data_prep.adopt", "--source", tmp_path / "tars", "--workers", 1).returncode == 0
    assert run_module("data_prep.verify", tmp_path / "tars", "--decode").returncode == 0
    shards = MappedShards(tmp_path / "tars", read_manifest(tmp_path / "tars"))
    assert [shards.jpeg(number).tobytes() for number in range(12)] == list(CONTENTS.values())


@pytest.mark.parametrize(
    ("members", "said"),
    [
        ({"a.png": file_of(picture("P"), "PNG")}, "decoders would not agree about a.png"),
        ({"a.jpg": jpeg(40, 40)[:-200]}, "a is damaged"),
        ({"a.txt": b"no image"}, "line 2"),
        ({"two words.jpg": jpeg(40, 40)}, "line 2"),
    ],
)
def test_tars_that_cannot_be_trained_on_say_how_to_pack_them(
    tmp_path: Path, members: dict[str, bytes], said: str
) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    (line,) = user_errors(run_module("data_prep.adopt", "--source", tmp_path))
    assert said in line and f"python -m data_prep.images --source {tmp_path}" in line
    assert not (tmp_path / "manifest.json").exists()
