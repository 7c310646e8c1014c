"""What is true of drawn faces, and the five annotation files that say it in CelebA's official formats.

Attributes, landmarks and who is who are those of the drawings; only the box is made up, as it refers to a photograph
that was never taken.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from pathlib import Path

from data_prep.faces.traits import Landmarks, Portrait, identity_of
from dcgan_dist.base.files import write_text

ATTRIBUTE_COLUMNS = (
    "5_o_Clock_Shadow Arched_Eyebrows Attractive Bags_Under_Eyes Bald Bangs Big_Lips Big_Nose Black_Hair Blond_Hair "
    "Blurry Brown_Hair Bushy_Eyebrows Chubby Double_Chin Eyeglasses Goatee Gray_Hair Heavy_Makeup High_Cheekbones Male "
    "Mouth_Slightly_Open Mustache Narrow_Eyes No_Beard Oval_Face Pale_Skin Pointy_Nose Receding_Hairline Rosy_Cheeks "
    "Sideburns Smiling Straight_Hair Wavy_Hair Wearing_Earrings Wearing_Hat Wearing_Lipstick Wearing_Necklace "
    "Wearing_Necktie Young"
)
ATTRIBUTES = tuple(ATTRIBUTE_COLUMNS.split())
LANDMARK_COLUMNS = (
    "lefteye_x lefteye_y righteye_x righteye_y nose_x nose_y leftmouth_x leftmouth_y rightmouth_x rightmouth_y"
)


@dataclass(frozen=True)
class FaceRecord:
    """What the annotation files say about one image."""

    attributes: frozenset[str]
    identity: int
    box: tuple[int, int, int, int]
    landmarks: Landmarks


def true_attributes(portrait: Portrait) -> frozenset[str]:
    """The CelebA attributes that can be seen in the drawing; all others are -1 in the file."""
    person = portrait.person
    bare_headed, bald = portrait.hat == "none", person.hair_style == "bald"
    eyes_seen, chin_seen = portrait.glasses != "dark", person.facial_hair in ("none", "mustache")
    hair_seen = not bald and (bare_headed or person.hair_style in ("bob", "long", "curly"))
    held = {
        "5_o_Clock_Shadow": person.facial_hair == "stubble",
        "Arched_Eyebrows": person.brows == "arched",
        "Bags_Under_Eyes": not person.young and eyes_seen,
        "Bald": bald and bare_headed,
        "Bangs": person.fringe == "bangs" and bare_headed and not bald,
        "Big_Lips": person.big_lips,
        "Big_Nose": person.nose == "big",
        person.hair_tone: person.hair_tone in ATTRIBUTES and not bald,
        "Bushy_Eyebrows": person.brows == "bushy",
        "Chubby": person.chubby,
        "Double_Chin": person.chubby and chin_seen,
        "Eyeglasses": portrait.glasses != "none",
        "Goatee": person.facial_hair in ("goatee", "beard"),
        "Heavy_Makeup": portrait.eye_shadow is not None and eyes_seen,
        "Male": person.male,
        "Mouth_Slightly_Open": portrait.mouth_open,
        "Mustache": person.facial_hair in ("mustache", "beard"),
        "Narrow_Eyes": person.narrow_eyes and eyes_seen,
        "No_Beard": chin_seen,
        "Oval_Face": person.jaw < 2.3 and not person.chubby,
        "Pale_Skin": person.skin_tone == "pale",
        "Pointy_Nose": person.nose == "pointy",
        "Receding_Hairline": person.fringe == "receding" and bare_headed and not bald,
        "Rosy_Cheeks": portrait.rosy_cheeks,
        "Sideburns": person.sideburns,
        "Smiling": portrait.smiling,
        "Straight_Hair": not person.wavy and hair_seen,
        "Wavy_Hair": person.wavy and hair_seen,
        "Wearing_Earrings": portrait.earrings is not None,
        "Wearing_Hat": not bare_headed,
        "Wearing_Lipstick": portrait.lipstick is not None,
        "Wearing_Necklace": portrait.necklace,
        "Wearing_Necktie": portrait.necktie is not None,
        "Young": person.young,
    }
    return frozenset(name for name, holds in held.items() if holds)


def describe(seed: int, number: int, portrait: Portrait) -> FaceRecord:
    """The annotations of image `number`; the box is a plausible one in a larger photograph (x, y, width, height)."""
    dice = random.Random(f"{seed}/box/{number}")
    width = dice.randint(90, 420)
    box = (dice.randint(0, 300), dice.randint(0, 200), width, round(width * 1.385))
    return FaceRecord(true_attributes(portrait), identity_of(seed, number), box, portrait.landmarks)


def file_name(number: int) -> str:
    return f"{number:06d}.jpg"


def split_bounds(num_images: int) -> tuple[int, int]:
    """The last number of the train split and of the validation split, in CelebA's proportions."""
    train, valid, total = 162_770, 19_867, 202_599
    last_train = max(1, round(num_images * train / total))
    return last_train, max(last_train, round(num_images * (train + valid) / total))


def write_annotations(out: Path, records: list[FaceRecord]) -> None:
    """The five text files, each line for line as the official one is laid out."""
    names = [file_name(number) for number in range(1, len(records) + 1)]
    held = [" ".join(" 1" if name in record.attributes else "-1" for name in ATTRIBUTES) for record in records]
    boxes = [" ".join(f"{value:4d}" for value in record.box) for record in records]
    points = [" ".join(f"{value:4d}" for point in _points(record.landmarks) for value in point) for record in records]
    last_train, last_valid = split_bounds(len(records))
    splits = [0 if number <= last_train else 1 if number <= last_valid else 2 for number in range(1, len(records) + 1)]
    _write_table(out / "list_attr_celeba.txt", ATTRIBUTE_COLUMNS, names, held)
    _write_table(out / "list_bbox_celeba.txt", "image_id x_1 y_1 width height", names, boxes)
    _write_table(out / "list_landmarks_align_celeba.txt", LANDMARK_COLUMNS, names, points)
    _write_table(out / "identity_CelebA.txt", None, names, [str(record.identity) for record in records])
    _write_table(out / "list_eval_partition.txt", None, names, [str(split) for split in splits])


def _points(landmarks: Landmarks) -> tuple[tuple[int, int], ...]:
    return landmarks.left_eye, landmarks.right_eye, landmarks.nose, landmarks.left_mouth, landmarks.right_mouth


def _write_table(path: Path, header: str | None, names: list[str], rows: list[str]) -> None:
    """One row an image; with a header, the number of images stands above it."""
    top = [] if header is None else [str(len(rows)), header]
    write_text(path, "\n".join([*top, *(f"{name} {row}" for name, row in zip(names, rows, strict=True))]) + "\n")
