"""Draws faces in CelebA's exact layout, so that everything can be tried without downloading a photograph.

    python -m data_prep.synthetic --out data/faces --num-images 4096 --seed 0

`DIR/img_align_celeba/000001.jpg` ... are 178x218 JPEGs; beside the folder lie the five annotation files in the official
formats. What they say is true of the drawings: attributes, landmarks and who is who; only the box is made up, as it
refers to a photograph that was never taken. Image number i depends on the seed and on i alone, whatever the number of
images or workers. The faces themselves are drawn by `data_prep.face_drawing`.
"""

from __future__ import annotations

import argparse
import colorsys
import concurrent.futures
import contextlib
import json
import multiprocessing
import os
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.face_drawing import Colour, Landmarks, Person, Portrait, draw_portrait
from dcgan_dist.errors import UserError, exit_cleanly
from dcgan_dist.files import sync_folder, temporary_name, write_text

IMAGES_FOLDER = "img_align_celeba"
RECORD_FILE = "synthetic.json"
"""Written last: a folder that has it is complete."""
UNFINISHED_FILE = "synthetic-unfinished.json"
"""Written first: a folder that has it is ours, and may be written to."""
DRAWING_VERSION = 1
"""Raised whenever the same seed begins to draw other pictures."""
JPEG_QUALITY = 90
FACES_PER_TASK = 64
IDENTITIES_PER_BLOCK, FACES_PER_BLOCK = 32, 256
MOST_IMAGES = 999_999

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

SKIN_TONES: dict[str, Colour] = {
    "pale": (255, 229, 214),
    "light": (247, 202, 166),
    "tan": (226, 172, 124),
    "olive": (206, 158, 108),
    "brown": (176, 120, 80),
    "dark": (142, 92, 66),
}
HAIR_TONES: dict[str, Colour] = {
    "Black_Hair": (34, 28, 36),
    "Brown_Hair": (104, 58, 28),
    "Blond_Hair": (252, 214, 78),
    "Gray_Hair": (188, 190, 198),
    "red": (196, 78, 34),
}


@dataclass(frozen=True)
class FaceRecord:
    """What the annotation files say about one image."""

    attributes: frozenset[str]
    identity: int
    box: tuple[int, int, int, int]
    landmarks: Landmarks


# --- who is drawn, and how ------------------------------------------------------------------------------------------


def identity_of(seed: int, number: int) -> int:
    """Whose face image `number` (from 1) shows: somebody of its block of 256 images and 32 identities."""
    block = (number - 1) // FACES_PER_BLOCK
    return block * IDENTITIES_PER_BLOCK + 1 + random.Random(f"{seed}/who/{number}").randrange(IDENTITIES_PER_BLOCK)


def imagine_person(seed: int, identity: int) -> Person:
    """The lasting traits of an identity."""
    dice = random.Random(f"{seed}/person/{identity}")
    male, young, chubby = dice.random() < 0.45, dice.random() < 0.78, dice.random() < 0.15
    skin_tone = dice.choices(list(SKIN_TONES), (2, 4, 3, 2, 2, 2))[0]
    hair_tone = dice.choices(list(HAIR_TONES), (4, 4, 3, 0.2, 1.5) if young else (1, 1, 0.5, 5, 0))[0]
    if hair_tone == "Brown_Hair" and skin_tone in ("brown", "dark"):
        hair_tone = "Black_Hair"  # Brown on brown cannot be told apart in a small picture.
    if male:
        hair_style = dice.choices(("short", "bald", "curly", "long"), (7, 1, 1.5, 0.6))[0]
        receding = 0.0 if hair_style == "long" else 1.0 if young else 4.0
        fringe = dice.choices(("swept", "side_part", "bangs", "receding"), (3, 3, 2, receding))[0]
        facial_hair = dice.choices(("none", "stubble", "mustache", "goatee", "beard"), (5, 1.2, 1.5, 1, 2))[0]
    else:
        hair_style = dice.choices(("long", "bob", "bun", "curly", "short"), (5, 3, 1.5, 1.5, 0.7))[0]
        fringe = dice.choices(("bangs", "side_part", "centre_part", "swept"), (3, 3, 2, 1.5))[0]
        facial_hair = "none"
    brows = dice.choices(("plain", "bushy", "arched"), (4, 3, 0.5) if male else (4, 0.7, 3))[0]
    return Person(
        male=male,
        young=young,
        chubby=chubby,
        skin_tone=skin_tone,
        skin=_near(dice, SKIN_TONES[skin_tone], 6),
        hair_tone=hair_tone,
        hair=_near(dice, HAIR_TONES[hair_tone], 10),
        hair_style=hair_style,
        fringe=fringe,
        wavy=hair_style == "curly" or (hair_style != "bald" and dice.random() < 0.4),
        facial_hair=facial_hair,
        sideburns=male and hair_style == "short" and dice.random() < 0.35,
        half_width=dice.uniform(55, 60) if chubby else dice.uniform(47, 54),
        jaw=dice.uniform(2.3, 2.7) if chubby or male else dice.uniform(1.9, 2.3),
        chin=dice.uniform(29, 33) if chubby else dice.uniform(30, 36),
        iris=dice.choice(((70, 130, 190), (96, 60, 36), (80, 140, 80), (60, 40, 34), (120, 130, 140))),
        narrow_eyes=dice.random() < 0.15,
        nose=dice.choices(("small", "big", "pointy"), (5, 2, 2))[0],
        brows=brows,
        big_lips=dice.random() < 0.2,
    )


def imagine_portrait(seed: int, number: int) -> Portrait:
    """Image `number` (from 1): its person in a mood, clothes and light of the moment."""
    identity = identity_of(seed, number)
    person = imagine_person(seed, identity)
    dice = random.Random(f"{seed}/portrait/{number}")
    turn, smiling = dice.uniform(-1, 1), dice.random() < 0.55
    made_up = not person.male and dice.random() < 0.25
    lipstick = made_up or (not person.male and dice.random() < 0.35)
    # Whoever needs glasses wears them most of the time.
    short_sighted = random.Random(f"{seed}/glasses/{identity}").random() < 0.22
    glasses = dice.choices(("round", "square", "dark"), (4, 3, 1.5))[0]
    wears_hat = dice.random() < 0.1
    return Portrait(
        person=person,
        landmarks=_place_landmarks(dice, turn),
        head_x=88.5 - 3 * turn,
        smiling=smiling,
        mouth_open=dice.random() < (0.6 if smiling else 0.25),
        rosy_cheeks=dice.random() < 0.2,
        lipstick=dice.choice(((214, 26, 54), (232, 48, 110), (168, 24, 70))) if lipstick else None,
        eye_shadow=dice.choice(((120, 90, 190), (60, 140, 170), (196, 90, 140))) if made_up else None,
        glasses=glasses if dice.random() < (0.85 if short_sighted else 0.04) else "none",
        frame=dice.choice(((24, 22, 28), (24, 22, 28), (150, 24, 40), (30, 50, 130))),
        hat=dice.choices(("beanie", "cap", "brim"))[0] if wears_hat else "none",
        hat_colour=_vivid(dice),
        earrings=dice.choice(((255, 214, 80), (90, 220, 230), (250, 250, 250)))
        if _wears_earrings(dice, person)
        else None,
        necklace=not person.male and dice.random() < 0.2,
        necktie=_vivid(dice) if person.male and dice.random() < 0.25 else None,
        clothes=_vivid(dice),
        wall=_imagine_wall(dice),
        discs=tuple(
            (dice.uniform(0, 178), dice.uniform(0, 218), dice.uniform(8, 30)) for _ in range(dice.choice((0, 0, 2, 4)))
        ),
        light=dice.choice((-1.0, 1.0)),
    )


def _wears_earrings(dice: random.Random, person: Person) -> bool:
    return dice.random() < (0.04 if person.male else 0.35)


def _place_landmarks(dice: random.Random, turn: float) -> Landmarks:
    """Where CelebA's alignment puts the five points, give or take; `turn` moves nose and mouth sideways."""
    eye_y, mouth_y = 111 + dice.randint(-1, 1), 152 + dice.randint(-2, 2)
    mouth_x, half_mouth = 89 + round(4 * turn), dice.randint(15, 18)
    return Landmarks(
        left_eye=(69 + dice.randint(-1, 1), eye_y),
        right_eye=(108 + dice.randint(-1, 1), eye_y),
        nose=(88 + round(6 * turn), 135 + dice.randint(-2, 2)),
        left_mouth=(mouth_x - half_mouth, mouth_y),
        right_mouth=(mouth_x + half_mouth, mouth_y),
    )


def _near(dice: random.Random, colour: Colour, spread: int) -> Colour:
    red, green, blue = (min(255, max(0, value + dice.randint(-spread, spread))) for value in colour)
    return red, green, blue


def _vivid(dice: random.Random) -> Colour:
    return _colour(dice.random(), dice.uniform(0.55, 0.9), dice.uniform(0.5, 0.95))


def _colour(hue: float, saturation: float, brightness: float) -> Colour:
    red, green, blue = (round(255 * value) for value in colorsys.hsv_to_rgb(hue % 1, saturation, brightness))
    return red, green, blue


def _imagine_wall(dice: random.Random) -> tuple[Colour, ...]:
    hue, saturation, brightness = dice.random(), dice.uniform(0.25, 0.75), dice.uniform(0.6, 1)
    return tuple(
        _colour(hue + dice.uniform(-0.07, 0.07), saturation, brightness * dice.uniform(0.75, 1)) for _ in range(4)
    )


# --- what is true of a drawing --------------------------------------------------------------------------------------


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


# --- files ----------------------------------------------------------------------------------------------------------


def file_name(number: int) -> str:
    return f"{number:06d}.jpg"


def draw_faces(images: Path, seed: int, numbers: range) -> list[FaceRecord]:
    """Draws some of the images and returns what to say about them, in the same order. Runs in a worker process."""
    records = []
    for number in numbers:
        portrait = imagine_portrait(seed, number)
        path = images / file_name(number)
        temporary = temporary_name(path)
        # Not synced one by one, that would be slow: `write_faces` syncs them all before it calls them done.
        draw_portrait(portrait).save(temporary, "JPEG", quality=JPEG_QUALITY, subsampling="4:2:0")
        temporary.replace(path)
        records.append(describe(seed, number, portrait))
    return records


def write_faces(out: Path, num_images: int, seed: int, workers: int) -> bool:
    """Writes the whole data set into `out`; False if it was there already.

    Raises UserError if `out` holds anything else or cannot be written to.
    """
    request = {"seed": seed, "num_images": num_images, "drawing_version": DRAWING_VERSION}
    if num_images < 1 or num_images > MOST_IMAGES:
        raise UserError(f"--num-images must be between 1 and {MOST_IMAGES}, not {num_images}")
    if workers < 1:
        raise UserError(f"--workers must be at least 1, not {workers}")
    try:
        if _is_complete(out, request):
            return False
        images = _open_folder(out, request)
        records = [record for batch in _draw_all(images, seed, num_images, workers) for record in batch]
        os.sync()
        _write_annotations(out, records)
        write_text(out / RECORD_FILE, json.dumps(request) + "\n")
        (out / UNFINISHED_FILE).unlink()
        sync_folder(out)
    except OSError as error:
        raise UserError(
            f"cannot write faces into {out}: {error.strerror or error} ({error.filename or out})"
        ) from error
    except concurrent.futures.BrokenExecutor as error:
        raise UserError("a drawing process was killed, perhaps for lack of memory; try fewer --workers") from error
    return True


def split_bounds(num_images: int) -> tuple[int, int]:
    """The last number of the train split and of the validation split, in CelebA's proportions."""
    train, valid, total = 162_770, 19_867, 202_599
    last_train = max(1, round(num_images * train / total))
    return last_train, max(last_train, round(num_images * (train + valid) / total))


def _is_complete(out: Path, request: dict[str, int]) -> bool:
    """Whether `out` holds just these faces already. Raises UserError if it holds something else."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not out.is_dir():
        raise UserError(f"{out} is a file; --out must name a folder")
    finished = (out / RECORD_FILE).is_file()
    record = out / (RECORD_FILE if finished else UNFINISHED_FILE)
    if not record.is_file():
        raise UserError(f"{out} holds other files; give --out a new or empty folder")
    try:
        found = json.loads(record.read_text())
    except ValueError:
        raise UserError(f"{record} is damaged; remove {out} or give another --out") from None
    if found != request:
        raise UserError(
            f"{out} holds another set ({_words(found)}, not {_words(request)}); remove it or give another --out"
        )
    return finished and _count_images(out) == request["num_images"]


def _words(request: dict[str, int]) -> str:
    if not isinstance(request, dict):
        return "unknown"
    return ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in request.items())


def _count_images(out: Path) -> int:
    return sum(1 for _ in (out / IMAGES_FOLDER).glob("[0-9]*.jpg"))


def _open_folder(out: Path, request: dict[str, int]) -> Path:
    """Marks `out` as ours and unfinished, clears what a crash left, and returns the folder for images."""
    out.mkdir(parents=True, exist_ok=True)
    write_text(out / UNFINISHED_FILE, json.dumps(request) + "\n")
    (out / RECORD_FILE).unlink(missing_ok=True)
    images = out / IMAGES_FOLDER
    images.mkdir(exist_ok=True)
    for leftover in (*out.glob(".*.tmp"), *images.glob(".*.tmp")):
        leftover.unlink()
    return images


def _draw_all(images: Path, seed: int, num_images: int, workers: int) -> Iterator[list[FaceRecord]]:
    """Draws every image, spread over the workers; yields the records in the order of the images."""
    tasks = [
        range(first, min(first + FACES_PER_TASK, num_images + 1)) for first in range(1, num_images + 1, FACES_PER_TASK)
    ]
    with contextlib.ExitStack() as stack:
        advance = stack.enter_context(_progress(num_images))
        if min(workers, len(tasks)) == 1:
            batches = (draw_faces(images, seed, task) for task in tasks)
        else:
            spawn = multiprocessing.get_context("spawn")
            pool = concurrent.futures.ProcessPoolExecutor(min(workers, len(tasks)), spawn, _start_worker)
            stack.callback(pool.shutdown, cancel_futures=True)
            batches = pool.map(draw_faces, [images] * len(tasks), [seed] * len(tasks), tasks)
        for batch in batches:
            advance(len(batch))
            yield batch


def _start_worker() -> None:
    """Leaves Ctrl-C to the parent process, and lets no worker outlive a parent that was killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@contextlib.contextmanager
def _progress(total: int) -> Iterator[Callable[[int], None]]:
    """Shows how many faces are drawn, on stderr: a bar on a terminal, else a line every tenth of the way."""
    from rich.console import Console  # Imported late: `--help` must be quick.
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if console.is_terminal:
        columns = (TextColumn("drawing faces"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console) as bar:
            task = bar.add_task("", total=total)
            yield lambda count: bar.advance(task, count)
        return
    drawn = 0

    def advance(count: int) -> None:
        nonlocal drawn
        tenths, drawn = drawn * 10 // total, drawn + count
        if drawn * 10 // total > tenths:
            print(f"drew {drawn} of {total} faces", file=sys.stderr, flush=True)

    yield advance


def _write_annotations(out: Path, records: list[FaceRecord]) -> None:
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


# --- the command ----------------------------------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m data_prep.synthetic",
        description="Draws cartoon faces in CelebA's exact layout (178x218 JPEGs and the five annotation files), "
        "to try the whole system without downloading CelebA. The same seed always draws the same bytes.",
        epilog="Then pack them for training:  python -m data_prep.celeba --source DIR --out SHARDS",
    )
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="new or empty folder to write to")
    parser.add_argument(
        "--num-images", type=int, required=True, metavar="N", help="how many faces; 4096 train a small GAN"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="which faces (default: 0)")
    parser.add_argument(
        "--workers",
        type=int,
        default=_usable_cores(),
        metavar="N",
        help="processes (default: all cores, here %(default)s)",
    )
    return parser


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def main() -> None:
    options = _parser().parse_args()
    started = time.monotonic()
    if not write_faces(options.out, options.num_images, options.seed, options.workers):
        print(f"{options.out} holds these {options.num_images} faces already (seed {options.seed}); nothing to do")
        return
    last_train, last_valid = split_bounds(options.num_images)
    counts = f"train {last_train}, valid {last_valid - last_train}, test {options.num_images - last_valid}"
    print(f"{options.num_images} faces in {options.out} ({counts}) in {time.monotonic() - started:.1f} s")


if __name__ == "__main__":
    exit_cleanly(main)
