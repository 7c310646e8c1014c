"""Which part of a photograph is kept, by name; the published ways for CelebA's 178x218 images."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from dcgan_dist.config import Crop

# Squares of a fixed size around the middle: DCGAN-tensorflow's, score-based models', VAE/GAN's, and that of
# "Are GANs Created Equal?".
_CENTERED_SIDES = {"center_108": 108, "center_140": 140, "center_148": 148, "center_160": 160}
_PGGAN_TOP, _PGGAN_LEFT, _PGGAN_SIDE = 57, 25, 128  # Progressive GAN's, around the face and not the middle


def needed_size(crop: Crop) -> tuple[int, int]:
    """Height and width in pixels below which an image cannot be cropped so."""
    if crop == "pggan_128":
        return _PGGAN_TOP + _PGGAN_SIDE, _PGGAN_LEFT + _PGGAN_SIDE
    side = _CENTERED_SIDES.get(crop, 1)
    return side, side


def crop_box(crop: Crop, height: Any, width: Any, smaller: Callable[[Any, Any], Any] = min) -> tuple[Any, ...]:
    """The kept rectangle of an image: top, left, bottom, right in pixels, edges and not pixel centres.

    Height and width are numbers, or what a decoder computes with in their place; `smaller` is its minimum of two.
    """
    if crop == "squash":
        return 0, 0, height, width
    if crop == "pggan_128":
        return _PGGAN_TOP, _PGGAN_LEFT, _PGGAN_TOP + _PGGAN_SIDE, _PGGAN_LEFT + _PGGAN_SIDE
    side = _CENTERED_SIDES[crop] if crop in _CENTERED_SIDES else smaller(height, width)
    top, left = (height - side) / 2, (width - side) / 2
    return top, left, top + side, left + side
