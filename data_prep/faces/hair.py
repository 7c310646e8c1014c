"""The hair on a drawn head: what the face hides of it, and what hangs before the face."""

from __future__ import annotations

import math

from data_prep.faces.canvas import FRAME_SIZE, WHITE, Canvas, Head, Point, bow, darker, mix
from data_prep.faces.traits import Person, Portrait


def hair_behind(canvas: Canvas, portrait: Portrait, head: Head) -> None:
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


def hair_in_front(canvas: Canvas, portrait: Portrait, head: Head) -> None:
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
