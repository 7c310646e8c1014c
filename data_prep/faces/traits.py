"""Who is drawn and how: the traits of imagined people and of single pictures of them.

`Person` holds what stays the same in every picture of somebody, `Portrait` one picture of them. Both follow from the
seed and a number alone. Lengths and positions are in pixels of the 178x218 frame, y downwards.
"""

from __future__ import annotations

import colorsys
import random
from dataclasses import dataclass
from typing import Literal

Colour = tuple[int, int, int]

IDENTITIES_PER_BLOCK, FACES_PER_BLOCK = 32, 256

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
class Person:
    """What every portrait of one identity shares."""

    male: bool
    young: bool
    chubby: bool
    skin_tone: str
    skin: Colour
    hair_tone: str
    hair: Colour
    hair_style: Literal["bald", "short", "bob", "long", "curly", "bun"]
    fringe: Literal["bangs", "side_part", "centre_part", "swept", "receding"]
    wavy: bool
    facial_hair: Literal["none", "stubble", "mustache", "goatee", "beard"]
    sideburns: bool
    half_width: float
    """From the middle of the face to a cheek, about 46 to 58."""
    jaw: float
    """Exponent of the lower face's superellipse: 2 is oval, 3 nearly square."""
    chin: float
    """From the mouth down to the chin, about 28 to 36."""
    iris: Colour
    narrow_eyes: bool
    nose: Literal["small", "big", "pointy"]
    brows: Literal["plain", "bushy", "arched"]
    big_lips: bool


@dataclass(frozen=True)
class Landmarks:
    """The five points CelebA gives for each picture; left and right as the viewer sees them."""

    left_eye: tuple[int, int]
    right_eye: tuple[int, int]
    nose: tuple[int, int]
    left_mouth: tuple[int, int]
    right_mouth: tuple[int, int]


@dataclass(frozen=True)
class Portrait:
    """One picture of a person: expression, what is worn, and the light and wall around them."""

    person: Person
    landmarks: Landmarks
    head_x: float
    """Middle of the head, about 88; the head turns away from the nose."""
    smiling: bool
    mouth_open: bool
    rosy_cheeks: bool
    lipstick: Colour | None
    eye_shadow: Colour | None
    glasses: Literal["none", "round", "square", "dark"]
    frame: Colour
    hat: Literal["none", "beanie", "cap", "brim"]
    hat_colour: Colour
    earrings: Colour | None
    necklace: bool
    necktie: Colour | None
    clothes: Colour
    wall: tuple[Colour, ...]
    """Four colours of the background's corners: top left, top right, bottom left, bottom right."""
    discs: tuple[tuple[float, float, float], ...]
    """Pale discs on the wall: x, y, radius."""
    light: float
    """Where the light comes from: -1 left, 1 right."""


# --- imagining them -------------------------------------------------------------------------------------------------


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
