"""Draws one cartoon face, aligned in the frame as CelebA's photographs are. Needs Pillow only.

`Person` holds what stays the same in every picture of somebody, `Portrait` one picture of them; `draw_portrait` turns a
portrait into pixels. Lengths and positions are in pixels of the 178x218 frame, y downwards. Everything is painted twice
as large and halved at the end, which smooths the edges. Shapes are big and flat on purpose: eyes, mouth and glasses
must still be seen when a picture is made 32 pixels wide.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageChops, ImageDraw

Colour = tuple[int, int, int]
Point = tuple[float, float]

FRAME_SIZE = (178, 218)
SUPERSAMPLING = 2
INK: Colour = (38, 26, 30)
WHITE: Colour = (252, 250, 246)


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


def draw_portrait(portrait: Portrait) -> Image.Image:
    """The picture, RGB, 178 wide and 218 high: painted from the wall forward to the glasses."""
    canvas = Canvas(_wall(portrait))
    head = Head(portrait)
    _wall_discs(canvas, portrait)
    _hair_behind(canvas, portrait, head)
    _body(canvas, portrait, head)
    _ears(canvas, portrait, head)
    _face(canvas, portrait, head)
    _facial_hair(canvas, portrait, head)
    _age_lines(canvas, portrait, head)
    _nose(canvas, portrait)
    _mouth(canvas, portrait)
    _mustache(canvas, portrait)
    for eye, side in ((portrait.landmarks.left_eye, -1), (portrait.landmarks.right_eye, 1)):
        _eye(canvas, portrait, eye, side)
        _brow(canvas, portrait, eye, side)
    _hair_in_front(canvas, portrait, head)
    _hat(canvas, portrait, head)
    _earrings(canvas, portrait, head)
    _glasses(canvas, portrait, head)
    return _light(canvas.image, portrait).reduce(SUPERSAMPLING)


class Canvas:
    """Paints filled shapes given in frame pixels on an image that is `SUPERSAMPLING` times as large."""

    def __init__(self, image: Image.Image) -> None:
        self.image = image
        self._draw = ImageDraw.Draw(image)

    def ellipse(self, centre: Point, radius_x: float, radius_y: float, fill: Colour | int) -> None:
        (x, y), scale = centre, SUPERSAMPLING
        box = ((x - radius_x) * scale, (y - radius_y) * scale, (x + radius_x) * scale, (y + radius_y) * scale)
        self._draw.ellipse(box, fill=fill)

    def polygon(self, points: list[Point], fill: Colour | int) -> None:
        self._draw.polygon([(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points], fill=fill)

    def lens(self, start: Point, end: Point, sag: float, other_sag: float, fill: Colour) -> None:
        """The area between two bows with the same ends: lips, teeth, lids, brims."""
        self.polygon(bow(start, end, sag) + bow(end, start, other_sag), fill)

    def stroke(self, points: list[Point], width: float, fill: Colour) -> None:
        """A line with round ends."""
        scaled = [(x * SUPERSAMPLING, y * SUPERSAMPLING) for x, y in points]
        self._draw.line(scaled, fill=fill, width=round(width * SUPERSAMPLING), joint="curve")
        for point in (points[0], points[-1]):
            self.ellipse(point, width / 2, width / 2, fill)

    def tint(self, colour: Colour, mask: Image.Image, corner: Point = (0, 0)) -> None:
        """Blends `colour` in where the mask (L, of the enlarged size) is bright, from `corner` on."""
        self.image.paste(colour, (round(corner[0] * SUPERSAMPLING), round(corner[1] * SUPERSAMPLING)), mask)


class Head:
    """Outlines of face and hair that several parts follow."""

    def __init__(self, portrait: Portrait) -> None:
        person, points = portrait.person, portrait.landmarks
        self.x = portrait.head_x
        self.y = (points.left_eye[1] + points.right_eye[1]) / 2 + 5
        self.half_width = person.half_width
        self.top = self.y - 63
        self.chin = (points.left_mouth[1] + points.right_mouth[1]) / 2 + person.chin
        self.jaw = person.jaw

    def face(self, grow: float = 1.0, start_degrees: int = 0, end_degrees: int = 360) -> list[Point]:
        """Points of the face's edge, clockwise from the right cheek (0) over the chin (90) and the top (270)."""
        points = []
        for degrees in range(start_degrees, end_degrees + 1, 6):
            cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
            height, power = (self.chin - self.y, 2 / self.jaw) if sine > 0 else (self.y - self.top, 1.0)
            x = self.half_width * grow * math.copysign(abs(cosine) ** power, cosine)
            points.append((self.x + x, self.y + height * grow * math.copysign(abs(sine) ** power, sine)))
        return points

    def crown(self, wide: float, high: float, ripple: float = 0.0) -> list[Point]:
        """The hair's or a hat's outer edge from the left temple over the top to the right one.

        `wide` is relative to the face, `high` in pixels above the skull, `ripple` the depth of the waves.
        """
        points = []
        for degrees in range(180, 361, 4):
            swell = 1 + ripple * math.sin(math.radians(degrees * 9))
            x = self.half_width * wide * swell * math.cos(math.radians(degrees))
            y = (self.y - self.top + high) * swell * math.sin(math.radians(degrees))
            points.append((self.x + x, self.y + y))
        return points


def bow(start: Point, end: Point, sag: float) -> list[Point]:
    """A bent line between two points; its middle hangs `sag` pixels below the straight one."""
    steps = [step / 12 for step in range(13)]
    (x0, y0), (x1, y1) = start, end
    return [(x0 + (x1 - x0) * t, y0 + (y1 - y0) * t + sag * 4 * t * (1 - t)) for t in steps]


def mix(first: Colour, second: Colour, share: float) -> Colour:
    """The first colour with `share` (0 to 1) of the second."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(first, second, strict=True))
    return red, green, blue


def darker(colour: Colour, share: float) -> Colour:
    """The colour with `share` (0 to 1) of its light gone, a little warmer for it, so that skin does not turn grey."""
    red, green, blue = colour
    return round(red * (1 - 0.85 * share)), round(green * (1 - share)), round(blue * (1 - share))


# --- from back to front ---------------------------------------------------------------------------------------------


def _large_size() -> tuple[int, int]:
    return FRAME_SIZE[0] * SUPERSAMPLING, FRAME_SIZE[1] * SUPERSAMPLING


@functools.cache
def _glow() -> Image.Image:
    """A round light, bright in the middle and gone at the edge (L, 256x256)."""
    edge = 255 / math.sqrt(2)  # Pillow's gradient is 255 in the corners, so this much in the middle of a side.
    fade = [max(0, round(255 * (1 - distance / edge))) for distance in range(256)]
    return Image.radial_gradient("L").point(fade)


def _spread(corners: Image.Image) -> Image.Image:
    """A smooth passage over the whole picture between the few pixels given, from centre to centre of the outer ones."""
    width, height = corners.size
    inner = (0.5 * (width > 1), 0.5 * (height > 1), width - 0.5 * (width > 1), height - 0.5 * (height > 1))
    return corners.resize(_large_size(), Image.Resampling.BILINEAR, box=inner)


def _wall(portrait: Portrait) -> Image.Image:
    """The background: four corner colours that run into each other."""
    corners = Image.new("RGB", (2, 2))
    corners.putdata(portrait.wall)
    return _spread(corners)


def _wall_discs(canvas: Canvas, portrait: Portrait) -> None:
    for x, y, radius in portrait.discs:
        nearest = portrait.wall[(2 if y > FRAME_SIZE[1] / 2 else 0) + (1 if x > FRAME_SIZE[0] / 2 else 0)]
        canvas.ellipse((x, y), radius, radius, mix(nearest, WHITE, 0.25))


def _hair_behind(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """The part of long hair, a bun or curls that the head and shoulders hide."""
    person = portrait.person
    colour = darker(person.hair, 0.25)
    if person.hair_style in ("bob", "long"):
        bottom = 178 if person.hair_style == "bob" else FRAME_SIZE[1] + 4
        canvas.polygon(_fall(head, person, 1, bottom) + _fall(head, person, -1, bottom)[::-1], colour)
    elif person.hair_style == "bun" and portrait.hat == "none":
        canvas.ellipse((head.x, head.top - 16), 20, 18, colour)
        canvas.ellipse((head.x - 4, head.top - 20), 11, 8, mix(person.hair, WHITE, 0.12))
    elif person.hair_style == "curly":
        for x, y in head.crown(1.24, 10)[::4] + [
            (head.x - side * head.half_width * 1.2, head.y + 16) for side in (-1, 1)
        ]:
            canvas.ellipse((x, y), 17, 17, colour)


def _fall(head: Head, person: Person, side: int, bottom: float) -> list[Point]:
    """The outer edge of hair hanging down one side (-1 left, 1 right), from the temple to `bottom`."""
    points = []
    for step in range(13):
        y = head.y - 10 + (bottom - head.y + 10) * step / 12
        wave = 5 * math.sin(step * 1.6) if person.wavy else 0.0
        points.append((head.x + side * (head.half_width * 1.2 + 8 * step / 12 + wave), y))
    return points


def _body(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """Shoulders, neck, collar and what is worn there."""
    skin, clothes, bottom = portrait.person.skin, portrait.clothes, FRAME_SIZE[1]
    broad = 96 if portrait.person.male else 84
    canvas.ellipse((head.x, bottom + 34), broad, 68, clothes)
    neck = 25 if portrait.person.male else 21
    canvas.polygon(
        [(head.x - neck, 150), (head.x + neck, 150), (head.x + neck, 196), (head.x - neck, 196)], darker(skin, 0.25)
    )
    canvas.ellipse((head.x, 194), neck + 2, 12, darker(skin, 0.25))
    if portrait.necktie:
        for side in (-1, 1):
            canvas.polygon(
                [(head.x, 204), (head.x + side * 30, 184), (head.x + side * 34, 214), (head.x + side * 8, 218)], WHITE
            )
        canvas.polygon([(head.x - 8, 196), (head.x + 8, 196), (head.x + 13, 222), (head.x - 13, 222)], portrait.necktie)
    if portrait.necklace:
        canvas.stroke(bow((head.x - 26, 188), (head.x + 26, 188), 20), 4, (250, 220, 120))


def _ears(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    for side in (-1, 1):
        centre = (head.x + side * head.half_width, head.y + 2)
        canvas.ellipse(centre, 9, 14, darker(portrait.person.skin, 0.12))
        canvas.ellipse(centre, 4, 8, darker(portrait.person.skin, 0.28))


def _face(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """The skin, in shadow on the side away from the light, and what colours the cheeks and lids."""
    skin, points = portrait.person.skin, portrait.landmarks
    mask = Image.new("L", _large_size())
    Canvas(mask).polygon(head.face(), 255)
    canvas.tint(skin, mask)
    shadow = Image.new("L", (3, 1))
    shadow.putdata([0, 40, 255] if portrait.light < 0 else [255, 40, 0])
    canvas.tint(darker(skin, 0.3), ImageChops.multiply(mask, _spread(shadow)))
    if portrait.person.chubby:
        canvas.stroke(bow((head.x - 24, head.chin - 11), (head.x + 24, head.chin - 11), 6), 2.5, darker(skin, 0.3))
    if portrait.rosy_cheeks:
        cheek = _glow().resize((30 * SUPERSAMPLING, 24 * SUPERSAMPLING))
        for x, y in ((points.left_mouth[0] - 23, points.nose[1] - 8), (points.right_mouth[0] - 7, points.nose[1] - 8)):
            canvas.tint((245, 95, 105), cheek, (x, y))


def _facial_hair(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """Beard, goatee and sideburns; the mouth is painted on top."""
    person, points = portrait.person, portrait.landmarks
    mouth = ((points.left_mouth[0] + points.right_mouth[0]) / 2, points.left_mouth[1])
    if person.facial_hair in ("beard", "stubble"):
        colour = person.hair if person.facial_hair == "beard" else mix(person.skin, darker(person.hair, 0.3), 0.4)
        inner = bow((head.x - head.half_width * 0.8, head.y + 6), (head.x + head.half_width * 0.8, head.y + 6), 46)
        canvas.polygon(head.face(1.03, 0, 180) + inner, colour)
        canvas.ellipse(mouth, 24, 15, colour)
    if person.facial_hair == "goatee":
        canvas.ellipse((mouth[0], (mouth[1] + head.chin) / 2 + 6), 15, (head.chin - mouth[1]) / 2 + 1, person.hair)
    if person.sideburns:
        for side in (-1, 1):
            edge, inside = head.x + side * head.half_width, head.x + side * (head.half_width - 11)
            canvas.polygon(
                [(edge, head.y - 20), (inside, head.y - 20), (inside, head.y + 24), (edge, head.y + 20)], person.hair
            )


def _age_lines(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """Forehead, eyes and cheeks of someone who is not young."""
    if portrait.person.young:
        return
    line, points = darker(portrait.person.skin, 0.34), portrait.landmarks
    for height in (24, 30):
        canvas.stroke(bow((head.x - 20, head.top + height), (head.x + 20, head.top + height), -3), 2, line)
    for x, y in (points.left_eye, points.right_eye):
        canvas.stroke(bow((x - 9, y + 14), (x + 9, y + 14), 4), 2.5, line)
    for side, corner in ((-1, points.left_mouth), (1, points.right_mouth)):
        canvas.stroke(
            bow((points.nose[0] + side * 14, points.nose[1]), (corner[0] + side * 7, corner[1] - 2), -2), 2.5, line
        )


def _nose(canvas: Canvas, portrait: Portrait) -> None:
    skin, (x, y) = portrait.person.skin, portrait.landmarks.nose
    shade, side = darker(skin, 0.36), 1 if portrait.light < 0 else -1
    if portrait.person.nose == "pointy":
        canvas.polygon([(x - side * 2, y - 22), (x + side * 11, y + 2), (x, y + 5)], darker(skin, 0.24))
        canvas.stroke([(x + side * 11, y + 2), (x - side * 3, y + 5)], 3, shade)
        return
    wide, high = (15, 10) if portrait.person.nose == "big" else (9, 7)
    canvas.ellipse((x, y), wide, high, darker(mix(skin, (240, 110, 90), 0.2), 0.1))
    canvas.ellipse((x - side * wide * 0.3, y - high * 0.4), wide * 0.35, high * 0.3, mix(skin, WHITE, 0.45))
    canvas.stroke(bow((x - wide * 0.8, y + high * 0.6), (x + wide * 0.8, y + high * 0.6), high * 0.6), 3, shade)


def _mouth(canvas: Canvas, portrait: Portrait) -> None:
    """Four mouths: smiling or not, open or closed; their corners are the landmarks."""
    left, right = portrait.landmarks.left_mouth, portrait.landmarks.right_mouth
    lips = portrait.lipstick or mix(portrait.person.skin, (165, 50, 60), 0.62)
    thick = 2.5 * bool(portrait.lipstick) + 3.0 * portrait.person.big_lips
    inside: Colour = (96, 20, 34)
    if portrait.smiling and portrait.mouth_open:
        canvas.lens(left, right, 1 - thick / 2, 24 + thick, lips)
        canvas.lens(left, right, 4, 19, inside)
        canvas.lens(left, right, 4, 12, WHITE)
    elif portrait.smiling:
        canvas.lens(left, right, 5 - thick / 2, 16 + thick, lips)
        canvas.stroke(bow(left, right, 10), 2.5, darker(lips, 0.65))
    elif portrait.mouth_open:
        canvas.lens(left, right, -8 - thick / 2, 15 + thick, lips)
        canvas.lens(left, right, -3, 10, inside)
    else:
        canvas.lens(left, right, -6 - thick / 2, 8 + thick, lips)
        canvas.stroke(bow(left, right, 0), 2.5, darker(lips, 0.65))


def _mustache(canvas: Canvas, portrait: Portrait) -> None:
    if portrait.person.facial_hair not in ("mustache", "beard"):
        return
    points = portrait.landmarks
    middle = (points.nose[0], points.nose[1] + 8.0)
    for corner, side in ((points.left_mouth, -1), (points.right_mouth, 1)):
        canvas.lens(middle, (corner[0] + side * 5, corner[1] - 1), -4, 6, portrait.person.hair)


def _eye(canvas: Canvas, portrait: Portrait, centre: Point, side: int) -> None:
    person, (x, y) = portrait.person, centre
    high = 6.5 if person.narrow_eyes else 11.0
    if portrait.eye_shadow:
        canvas.ellipse((x, y - 3), 16, high + 4, portrait.eye_shadow)
    canvas.ellipse(centre, 14, high + 1.5, darker(person.skin, 0.6))
    canvas.ellipse(centre, 13, high, WHITE)
    canvas.ellipse(centre, 7.5, min(8.5, high), person.iris)
    canvas.ellipse(centre, 4, min(4.5, high), INK)
    canvas.ellipse((x - 2.5, y - 3), 2, 2, WHITE)
    lid = 5.0 if portrait.eye_shadow else 3.5
    canvas.stroke(bow((x - 13, y - high * 0.35), (x + 13, y - high * 0.35), -high * 0.8), lid, INK)
    if not person.male:
        canvas.stroke([(x + side * 13, y - high * 0.35), (x + side * 17, y - high * 0.35 - 4)], 3, INK)


def _brow(canvas: Canvas, portrait: Portrait, eye: Point, side: int) -> None:
    person, (x, y) = portrait.person, eye
    width = {"plain": 4.0, "arched": 3.5, "bushy": 8.0}[person.brows]
    rise = -8 if person.brows == "arched" else -3
    inner, outer = (x - side * 11, y - 18.0), (x + side * 14, y - 17.0)
    canvas.stroke(bow(inner, outer, rise), width, darker(person.hair, 0.45))


def _hair_in_front(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """Hair between the hairline and the crown, and locks before the ears; then a few bright strands."""
    person = portrait.person
    if person.hair_style == "bald":
        canvas.ellipse((head.x + 14 * portrait.light, head.top + 16), 15, 7, mix(person.skin, WHITE, 0.4))
        return
    wide, high = {"short": (1.1, 11), "curly": (1.16, 15), "bun": (1.06, 9)}.get(person.hair_style, (1.2, 13))
    crown = head.crown(wide, high, 0.025 if person.wavy else 0.0)
    canvas.polygon(crown + _hairline(portrait, head), person.hair)
    canvas.stroke(_hairline(portrait, head), 3, darker(person.hair, 0.3))
    if person.hair_style == "curly":
        for x, y in head.crown(1.1, 4)[::4]:
            canvas.ellipse((x, y), 13, 13, person.hair)
    if person.hair_style in ("bob", "long"):
        _locks(canvas, portrait, head, 172 if person.hair_style == "bob" else FRAME_SIZE[1] + 4)
    strand = mix(person.hair, (255, 240, 215), 0.22)
    for inset, width in ((0.8, 5), (0.92, 3)):
        arc = head.crown(wide * inset, high - 22 * (1 - inset) - 3)
        canvas.stroke(arc[11:20] if portrait.light < 0 else arc[26:35], width, strand)


def _locks(canvas: Canvas, portrait: Portrait, head: Head, bottom: float) -> None:
    """Hair hanging before the ears and the edge of the cheeks."""
    for side in (-1, 1):
        outer = _fall(head, portrait.person, side, bottom)
        inner = [(head.x + side * (head.half_width * 0.9 + 6 * abs(y - head.y) / 60), y) for _, y in outer]
        canvas.polygon(outer + inner[::-1], portrait.person.hair)


def _hairline(portrait: Portrait, head: Head) -> list[Point]:
    """The lower edge of the front hair, from the right temple to the left one."""
    person = portrait.person
    fringe = "swept" if portrait.hat != "none" else person.fringe
    drop = 14.0 if person.hair_style in ("short", "bun", "curly") else 6.0
    right, left = (head.x + head.half_width * 0.95, head.y + drop), (head.x - head.half_width * 0.95, head.y + drop)
    if fringe == "bangs":
        return [right, *_teeth(head, person), left]
    if fringe == "swept":
        return [right, *bow((right[0] - 5, head.y - 30), (left[0] + 5, head.y - 30), -15), left]
    if fringe == "receding":
        peak = (head.x, head.top + 15)
        return [right, *bow((right[0] - 3, head.y - 24), peak, -26), *bow(peak, (left[0] + 3, head.y - 24), -26), left]
    part = (head.x + (0 if fringe == "centre_part" else -18 if portrait.person.male else 20), head.top + 12)
    return [right, *bow((right[0] - 3, head.y - 16), part, -13), *bow(part, (left[0] + 3, head.y - 16), -13), left]


def _teeth(head: Head, person: Person) -> list[Point]:
    """The lower edge of bangs, just above the brows: a soft zigzag, deeper if the hair is wavy."""
    depth = 6 if person.wavy else 3
    steps = range(9)
    reach = head.half_width * 0.86
    return [(head.x + reach * (1 - step / 4), head.y - 29 + (depth if step % 2 else -depth)) for step in steps]


def _hat(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    if portrait.hat == "none":
        return
    colour, rim = portrait.hat_colour, head.y - 32
    dome = [(x, min(y, rim)) for x, y in head.crown(1.24, 20)]
    canvas.polygon(dome, colour)
    band = mix(colour, WHITE, 0.55) if portrait.hat == "beanie" else darker(colour, 0.5)
    reach = head.half_width * (1.65 if portrait.hat == "brim" else 1.2)
    left, right = (head.x - reach, rim), (head.x + reach, rim)
    if portrait.hat == "beanie":
        canvas.stroke(bow(left, right, -4), 15, band)
        canvas.ellipse((head.x, head.top - 20), 11, 11, band)
    elif portrait.hat == "cap":
        canvas.lens(left, right, -8, 11, band)
    else:
        canvas.stroke(
            bow((head.x - head.half_width * 1.1, rim - 9), (head.x + head.half_width * 1.1, rim - 9), -5), 9, band
        )
        canvas.lens(left, right, -13, 7, colour)


def _earrings(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    if portrait.earrings:
        for side in (-1, 1):
            canvas.ellipse((head.x + side * (head.half_width + 3), head.y + 23), 6.5, 8, portrait.earrings)


def _glasses(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    """Rings round the eyes, a bridge and temples; dark lenses hide the eyes."""
    if portrait.glasses == "none":
        return
    frame, eyes = portrait.frame, (portrait.landmarks.left_eye, portrait.landmarks.right_eye)
    for (x, y), side in zip(eyes, (-1, 1), strict=True):
        canvas.stroke([(x + side * 17, y - 3), (head.x + side * head.half_width, y - 5)], 4, frame)
        if portrait.glasses == "dark":
            canvas.ellipse((x, y + 1), 18.5, 15.5, frame)
            canvas.stroke([(x - 8, y - 1), (x - 3, y - 7)], 3, mix(frame, WHITE, 0.5))
        else:
            rim = _round_rim((x, y)) if portrait.glasses == "round" else _square_rim((x, y))
            canvas.stroke([*rim, rim[0]], 4.5, frame)
    (left_x, left_y), (right_x, right_y) = eyes
    canvas.stroke(bow((left_x + 17, left_y - 2), (right_x - 17, right_y - 2), -3), 4.5, frame)


def _round_rim(eye: Point) -> list[Point]:
    angles = [math.radians(degrees) for degrees in range(0, 360, 15)]
    return [(eye[0] + 17 * math.cos(angle), eye[1] + 16 * math.sin(angle)) for angle in angles]


def _square_rim(eye: Point) -> list[Point]:
    x, y = eye
    return [(x - 17, y - 12), (x + 17, y - 12), (x + 16, y + 13), (x - 16, y + 13)]


def _light(image: Image.Image, portrait: Portrait) -> Image.Image:
    """The whole picture a little darker on the side away from the light and towards the bottom."""
    near, far = 255, 230
    left, right = (near, far) if portrait.light < 0 else (far, near)
    corners = Image.new("L", (2, 2))
    corners.putdata([left, right, left - 10, right - 10])
    lamp = _spread(corners)
    return ImageChops.multiply(image, Image.merge("RGB", (lamp, lamp, lamp)))
