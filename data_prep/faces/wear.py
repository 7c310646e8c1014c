"""What drawn heads wear: hats, earrings and glasses."""

from __future__ import annotations

import math

from data_prep.faces.canvas import WHITE, Canvas, Head, Point, bow, darker, mix
from data_prep.faces.traits import Portrait


def hat(canvas: Canvas, portrait: Portrait, head: Head) -> None:
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


def earrings(canvas: Canvas, portrait: Portrait, head: Head) -> None:
    if portrait.earrings:
        for side in (-1, 1):
            canvas.ellipse((head.x + side * (head.half_width + 3), head.y + 23), 6.5, 8, portrait.earrings)


def glasses(canvas: Canvas, portrait: Portrait, head: Head) -> None:
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
