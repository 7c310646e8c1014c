"""What is stored of an image: its own bytes where every decoder reads them alike, else a PNG of what Pillow sees."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from data_prep.packing.plain_jpeg import is_plain
from data_prep.sources.entries import DamagedImage
from dcgan_dist.base.errors import in_one_line

if TYPE_CHECKING:
    from PIL.Image import Image

Result = TypeVar("Result")

EXTENSIONS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}
"""Of what may stand in a shard, by Pillow's name of its format."""
_ORIENTATION = 0x0112  # of EXIF's tags: how the camera was held


@dataclass(frozen=True)
class Form:
    """How images are to be stored."""

    decode_check: bool = True
    """Decode even those that are stored as they are."""
    as_seen: bool = True
    """Heed a camera's orientation and a colour profile, as a viewer does; CelebA's pixels are taken without."""
    background: tuple[int, int, int] = (255, 255, 255)
    """Colour behind transparent pixels."""
    size: int | None = None
    """Pixels of the square that an image is cropped and resized to, as training does; None: as it is."""


class Stored(NamedTuple):
    """An image as it goes into a shard."""

    extension: str
    content: bytes
    height: int
    width: int
    is_rewritten: bool


def store(content: bytes, form: Form) -> Stored:
    """What is stored of an image file. Raises DamagedImage if it cannot be decoded."""
    with warnings.catch_warnings(action="ignore"):  # of EXIF that nobody reads, and of many pixels
        return _stored(content, form)


def _stored(content: bytes, form: Form) -> Stored:
    if not content:
        raise DamagedImage("it is empty")
    picture = _open(content)
    if form.size is None and _checked(lambda: _may_stay(content, picture, form)):  # of a PNG, EXIF may be at the end
        stored = Stored(EXTENSIONS[str(picture.format)], content, picture.height, picture.width, False)
        if form.decode_check:
            picture.draft(picture.mode, (1, 1))  # every bit of a JPEG is read, an eighth of it painted: a third faster
            _checked(picture.load)
        return stored
    image = _checked(lambda: _as_rgb(picture, form))
    if form.size is not None:
        from dcgan_dist.data.crop import crop_and_resize
        from dcgan_dist.data.plain_png import plain_png

        return Stored("png", plain_png(crop_and_resize(image, form.size, "short_side")), form.size, form.size, True)
    png = io.BytesIO()
    image.save(png, "PNG")
    return Stored("png", png.getvalue(), image.height, image.width, True)


def _open(content: bytes) -> Image:
    from PIL import Image, UnidentifiedImageError

    try:
        return Image.open(io.BytesIO(content))
    except Image.DecompressionBombError:
        raise DamagedImage("it has more pixels than are opened, as a file would that is made to fill memory") from None
    except UnidentifiedImageError:
        raise DamagedImage("its header is cut off or broken, or it is no image") from None
    except Exception as error:  # Pillow's plugins raise half a dozen kinds
        raise DamagedImage(f"its header is cut off or broken: {in_one_line(error)}") from None


def _checked(decode: Callable[[], Result]) -> Result:
    try:
        return decode()
    except Exception as error:
        raise DamagedImage(in_one_line(error)) from None


def _may_stay(content: bytes, picture: Image, form: Form) -> bool:
    """Whether DALI and Pillow make the same pixels of the file, and those that a viewer shows."""
    if picture.format not in EXTENSIONS or getattr(picture, "n_frames", 1) > 1:
        return False
    if form.as_seen and (picture.getexif().get(_ORIENTATION, 1) != 1 or _foreign_profile(picture)):
        return False
    if picture.format == "JPEG":
        return is_plain(content)
    if picture.format == "WEBP":
        return picture.mode == "RGB"
    depth, colour_type = content[24], content[25]  # of a PNG's header; 0 is grey, 2 is RGB
    return depth == 8 and colour_type in (0, 2) and "transparency" not in picture.info


def _foreign_profile(picture: Image) -> bytes | None:
    """The colour profile, if it is there and not sRGB's."""
    profile = picture.info.get("icc_profile")
    if not profile or b"sRGB" in profile or "sRGB".encode("utf-16-be") in profile:
        return None
    return profile


def _as_rgb(picture: Image, form: Form) -> Image:
    """The first frame in 8-bit RGB: turned, its colours translated to sRGB, on the background."""
    from PIL import Image, ImageOps

    profile = _foreign_profile(picture) if form.as_seen else None
    picture.load()
    if form.as_seen:
        picture = ImageOps.exif_transpose(picture)
    if picture.mode[:1] in "IF":
        picture = _in_eight_bits(picture)
    if picture.mode not in ("RGBA", "RGBa", "LA", "La", "PA") and "transparency" not in picture.info:
        return _to_srgb(picture, profile)
    alpha = picture.convert("RGBA").getchannel("A")
    colours = picture.convert("L" if picture.mode in ("LA", "La") else "RGB")
    behind = Image.new("RGB", picture.size, form.background)
    behind.paste(_to_srgb(colours, profile), mask=alpha)
    return behind


def _to_srgb(picture: Image, profile: bytes | None) -> Image:
    """The colours that the profile means; a profile that cannot be applied is passed over."""
    if profile:
        from PIL import ImageCms

        try:
            own, srgb = ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB")
            if translated := ImageCms.profileToProfile(picture, own, srgb, outputMode="RGB"):
                return translated
        except (ImageCms.PyCMSError, OSError, ValueError):
            pass
    return picture.convert("RGB")


def _in_eight_bits(picture: Image) -> Image:
    """Grey of 16 or 32 bits becomes 0 to 255: white is 65535, or 1 among fractions none of which is larger."""
    import numpy as np
    from PIL.Image import fromarray

    values = np.nan_to_num(np.asarray(picture, dtype=np.float64))
    white = 1.0 if picture.mode == "F" and values.max() <= 1 else 65535.0
    return fromarray((values.clip(0, white) * (255 / white)).round().astype(np.uint8))
