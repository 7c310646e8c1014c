"""Drawn faces: CelebA's layout to the letter, annotations that are true, the same bytes every time."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image, ImageChops

from data_prep.faces.annotations import ATTRIBUTES, split_bounds, true_attributes
from data_prep.faces.drawing import draw_portrait
from data_prep.faces.traits import Portrait, imagine_portrait
from data_prep.synthetic import write_faces
from dcgan_dist.base.errors import UserError

NUM_IMAGES = 130  # Three tasks for the workers.
EYES, MOUTH = (20, 90, 158, 130), (60, 138, 120, 176)


@pytest.fixture(scope="module")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("faces") / "one-worker"
    assert write_faces(out, NUM_IMAGES, seed=3, workers=1)
    return out


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def table(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()]


def test_same_seed_same_bytes_with_any_number_of_workers(faces: Path, tmp_path: Path) -> None:
    write_faces(tmp_path / "two-workers", NUM_IMAGES, seed=3, workers=2)
    assert contents(tmp_path / "two-workers") == contents(faces)


def test_an_image_depends_on_seed_and_number_only(faces: Path, tmp_path: Path) -> None:
    write_faces(tmp_path / "few", 2, seed=3, workers=1)
    write_faces(tmp_path / "other", 2, seed=4, workers=1)
    second = "img_align_celeba/000002.jpg"
    assert (tmp_path / "few" / second).read_bytes() == (faces / second).read_bytes()
    assert (tmp_path / "other" / second).read_bytes() != (faces / second).read_bytes()


def test_images_are_as_in_celeba(faces: Path) -> None:
    names = sorted(path.name for path in (faces / "img_align_celeba").iterdir())
    assert names == [f"{number:06d}.jpg" for number in range(1, NUM_IMAGES + 1)]
    with Image.open(faces / "img_align_celeba" / names[0]) as image:
        assert (image.format, image.size, image.mode) == ("JPEG", (178, 218), "RGB")
        assert not image.info.get("progressive")


def test_annotations_are_in_the_official_formats(faces: Path) -> None:
    columns = {"list_attr_celeba.txt": 40, "list_bbox_celeba.txt": 4, "list_landmarks_align_celeba.txt": 10}
    for name, width in columns.items():
        count, header, *rows = table(faces / name)
        assert count == [str(NUM_IMAGES)] and len(rows) == NUM_IMAGES
        assert len(header) in (width, width + 1) and {len(row) for row in rows} == {width + 1}
        assert rows[-1][0] == f"{NUM_IMAGES:06d}.jpg"
    attributes = table(faces / "list_attr_celeba.txt")
    assert tuple(attributes[1]) == ATTRIBUTES
    for number, row in enumerate(attributes[2:], start=1):
        held = {name for name, value in zip(ATTRIBUTES, row[1:], strict=True) if value == "1"}
        assert set(row[1:]) <= {"1", "-1"} and held == true_attributes(imagine_portrait(3, number))
    assert all(len(row) == 2 for row in table(faces / "identity_CelebA.txt"))
    splits = [int(row[1]) for row in table(faces / "list_eval_partition.txt")]
    assert splits == sorted(splits) and set(splits) == {0, 1, 2} and len(splits) == NUM_IMAGES


def test_splits_follow_celeba_and_train_is_never_empty() -> None:
    assert split_bounds(202_599) == (162_770, 182_637)
    for num_images in range(1, 50):
        last_train, last_valid = split_bounds(num_images)
        assert 1 <= last_train <= last_valid <= num_images


def plain_portrait() -> Portrait:
    person = dataclasses.replace(imagine_portrait(0, 1).person, facial_hair="none", male=False, hair_style="short")
    return dataclasses.replace(
        imagine_portrait(0, 1),
        person=person,
        glasses="none",
        hat="none",
        lipstick=None,
        smiling=False,
        mouth_open=False,
    )


@pytest.mark.parametrize(
    ("attribute", "change", "where"),
    [
        ("Eyeglasses", {"glasses": "round"}, EYES),
        ("Wearing_Lipstick", {"lipstick": (214, 26, 54)}, MOUTH),
        ("Smiling", {"smiling": True}, MOUTH),
        ("Mouth_Slightly_Open", {"mouth_open": True}, MOUTH),
        ("Wearing_Hat", {"hat": "beanie"}, (0, 0, 178, 130)),
    ],
)
def test_an_attribute_is_seen_where_it_belongs(
    attribute: str, change: dict[str, object], where: tuple[int, int, int, int]
) -> None:
    without = plain_portrait()
    wearing = dataclasses.replace(without, **change)
    assert attribute in true_attributes(wearing) - true_attributes(without)
    changed = ImageChops.difference(draw_portrait(without), draw_portrait(wearing)).getbbox()
    assert changed is not None
    assert where[0] <= changed[0] and where[1] <= changed[1] and changed[2] <= where[2] and changed[3] <= where[3]


def test_landmarks_lie_on_the_pupils() -> None:
    portrait = plain_portrait()
    image = draw_portrait(portrait)
    for eye in (portrait.landmarks.left_eye, portrait.landmarks.right_eye):
        around = (eye[0] - 1, eye[1] - 1, eye[0] + 2, eye[1] + 2)
        assert max(image.convert("L").crop(around).tobytes()) < 60


def test_a_second_call_has_nothing_to_do_and_a_crash_is_made_good(faces: Path, tmp_path: Path) -> None:
    assert not write_faces(faces, NUM_IMAGES, seed=3, workers=1)
    record = json.loads((faces / "synthetic.json").read_text())
    assert (record["seed"], record["num_images"]) == (3, NUM_IMAGES)
    out = tmp_path / "crashed"
    write_faces(out, 5, seed=3, workers=1)
    whole = contents(out)
    (out / "synthetic.json").rename(out / "synthetic-unfinished.json")
    (out / "img_align_celeba" / "000002.jpg").unlink()
    (out / "img_align_celeba" / ".000002.jpg.1.tmp").write_bytes(b"half")
    assert write_faces(out, 5, seed=3, workers=1)
    assert contents(out) == whole


def test_other_peoples_folders_and_bad_values_are_refused(faces: Path, tmp_path: Path) -> None:
    (tmp_path / "img_align_celeba").mkdir()
    (tmp_path / "img_align_celeba" / "000001.jpg").write_bytes(b"a photograph")
    before = contents(tmp_path)
    with pytest.raises(UserError, match="holds other files"):
        write_faces(tmp_path, 5, seed=0, workers=1)
    assert contents(tmp_path) == before
    with pytest.raises(UserError, match="another set"):
        write_faces(faces, NUM_IMAGES, seed=4, workers=1)
    with pytest.raises(UserError, match="num-images"):
        write_faces(tmp_path / "new", 0, seed=0, workers=1)
    with pytest.raises(UserError, match="cannot write"):
        write_faces(tmp_path / "img_align_celeba" / "000001.jpg" / "under-a-file", 1, seed=0, workers=1)


def test_the_command_says_one_line_and_exits_2(faces: Path) -> None:
    command = [sys.executable, "-m", "data_prep.synthetic", "--out", str(faces), "--num-images", "7"]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ended.returncode == 2
    assert ended.stderr.startswith("error: ") and len(ended.stderr.splitlines()) == 1
