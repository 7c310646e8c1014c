"""Draws one cartoon face, aligned in the frame as CelebA's photographs are. Needs Pillow only.

`draw_portrait` turns a portrait into pixels. Wall, body, face and light are painted here, hair in
`data_prep.faces.hair`, hats, earrings and glasses in `data_prep.faces.wear`. Shapes are big and flat on purpose: eyes,
mouth and glasses must still be seen when a picture is made 32 pixels wide.
"""

from __future__ import annotations

import functools
import math

from PIL import Image, ImageChops

from data_prep.faces.canvas import FRAME_SIZE, INK, SUPERSAMPLING, WHITE, Canvas, Head, Point, bow, darker, mix
from data_prep.faces.hair import hair_behind, hair_in_front
from data_prep.faces.traits import Colour, Portrait
from data_prep.faces.wear import earrings, glasses, hat


def draw_portrait(portrait: Portrait) -> Image.Image:
    """The picture, RGB, 178 wide and 218 high: painted from the wall forward to the glasses."""
    canvas = Canvas(_wall(portrait))
    head = Head(portrait)
    _wall_discs(canvas, portrait)
    hair_behind(canvas, portrait, head)
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
    hair_in_front(canvas, portrait, head)
    hat(canvas, portrait, head)
    earrings(canvas, portrait, head)
    glasses(canvas, portrait, head)
    return _light(canvas.image, portrait).reduce(SUPERSAMPLING)


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


def _light(image: Image.Image, portrait: Portrait) -> Image.Image:
    """The whole picture a little darker on the side away from the light and towards the bottom."""
    near, far = 255, 230
    left, right = (near, far) if portrait.light < 0 else (far, near)
    corners = Image.new("L", (2, 2))
    corners.putdata([left, right, left - 10, right - 10])
    lamp = _spread(corners)
    return ImageChops.multiply(image, Image.merge("RGB", (lamp, lamp, lamp)))
