"""Which part of a photograph is kept, by name; the published ways for CelebA's 178x218 images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from dcgan_dist.config import Crop

if TYPE_CHECKING:
    import numpy as np
    from PIL.Image import Image

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


def crop_and_resize(image: Image, size: int, crop: Crop) -> np.ndarray:
    """The cropped part of an RGB image, shrunk with an antialiasing triangle filter, as uint8 [size, size, 3]."""
    import numpy as np
    from PIL import Image

    top, left, bottom, right = crop_box(crop, image.height, image.width)
    # Where the filter reaches over the image's edge, DALI repeats the edge and Pillow leaves pixels out. With the edge
    # repeated beforehand both see the same.
    reach = math.ceil(max(1.0, (bottom - top) / size, (right - left) / size)) + 1
    padded = np.pad(np.asarray(image), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    box = (left + reach, top + reach, right + reach, bottom + reach)
    return np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=box))
