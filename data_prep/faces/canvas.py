"""What faces are painted with: the enlarged canvas, the outlines of a head, bent lines and mixed colours.

Everything is painted twice as large and halved at the end, which smooths the edges; positions are given in pixels of
the 178x218 frame all the same.
"""

from __future__ import annotations

import math

from PIL import Image, ImageDraw

from data_prep.faces.traits import Colour, Portrait

Point = tuple[float, float]

FRAME_SIZE = (178, 218)
SUPERSAMPLING = 2
INK: Colour = (38, 26, 30)
WHITE: Colour = (252, 250, 246)


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
