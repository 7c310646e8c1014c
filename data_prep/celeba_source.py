"""CelebA as people have it: the official folders, torchvision's folder, the zip, or Kaggle's copy.

    official     Img/img_align_celeba/ or Img/img_align_celeba.zip, Anno/list_attr_celeba.txt and so on, Eval/
    torchvision  celeba/img_align_celeba/ or celeba/img_align_celeba.zip, and the annotation files beside it
    Kaggle       img_align_celeba/img_align_celeba/, and list_attr_celeba.csv, ... with commas and a header

This file owns where things lie; `data_prep.celeba_images` reads the images, `data_prep.celeba_annotations` the rest.
"""

from __future__ import annotations

import itertools
import re
from dataclasses import dataclass
from pathlib import Path

from data_prep.celeba_annotations import ANNOTATION_FILES
from data_prep.celeba_images import ImageFolder, ImageZip, SourceImage
from dcgan_dist.errors import UserError

WHERE_TO_GET_IT = (
    "Get CelebA at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba.zip (no need to unpack it), "
    "list_attr_celeba.txt and list_eval_partition.txt, and if you want them in the shards identity_CelebA.txt, "
    "list_landmarks_align_celeba.txt, list_bbox_celeba.txt; put them into one folder"
)

_IMAGE_FOLDERS = ("img_align_celeba/img_align_celeba", "img_align_celeba", "Img/img_align_celeba")
_IMAGE_ZIPS = ("img_align_celeba.zip", "Img/img_align_celeba.zip")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.jpg")  # one dot: the tar's key must end where the extension begins


@dataclass(frozen=True)
class Source:
    """Where a copy of CelebA, or of drawn faces in its layout, keeps its parts."""

    dataset: str
    images: ImageFolder | ImageZip
    annotation_files: dict[str, Path]

    def list_images(self) -> tuple[list[str], dict[str, SourceImage]]:
        """The sorted names of all images, and for a zip where in it each lies.

        Raises UserError for a bad zip and for a name that could not stand in a shard.
        """
        in_zip: dict[str, SourceImage] = {}
        if isinstance(self.images, ImageZip):
            in_zip = {image.name: image for image in self.images.images()}
        names = sorted(in_zip or (image.name for image in self.images.images()))
        if unsafe := [name for name in names if not _SAFE_NAME.fullmatch(name)]:
            raise UserError(
                f"{self.images.path}: {unsafe[0]!r} is no name for an image; expected is one like 000001.jpg"
            )
        return names, in_zip


def find_source(path: Path) -> Source:
    """Recognises the layout. Raises UserError, saying where to get CelebA, if there are no images; and OSError."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. {WHERE_TO_GET_IT}")
    roots = [path, path / "celeba"] if path.is_dir() else [path.parent]
    images = _find_images(roots) if path.is_dir() else ImageZip(path)
    if images is None:
        missing = "img_align_celeba/ with JPEG files nor img_align_celeba.zip"
        raise UserError(f"{path}: holds neither {missing}. {WHERE_TO_GET_IT}")
    for place in (images.path.absolute(), images.path.resolve()):  # where a link is, and where it leads
        above = place.parent  # --source may be the folder of images itself, or Img/ of the official layout
        while above.name in ("img_align_celeba", "Img"):
            above = above.parent
        roots.append(above)
    dataset = "synthetic" if any((root / "synthetic.json").is_file() for root in roots) else "celeba"
    return Source(dataset, images, _find_annotations(roots))


def _find_images(roots: list[Path]) -> ImageFolder | ImageZip | None:
    folders = [root / name for root, name in itertools.product(roots, _IMAGE_FOLDERS)]
    zips = [root / name for root, name in itertools.product(roots, _IMAGE_ZIPS)]
    for folder in folders:
        if _holds_images(folder):
            return ImageFolder(folder)
    for file in zips:
        if file.is_file():
            return ImageZip(file)
    return ImageFolder(roots[0]) if _holds_images(roots[0]) else None


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and next(ImageFolder(folder).images(), None) is not None


def _find_annotations(roots: list[Path]) -> dict[str, Path]:
    found: dict[str, Path] = {}
    for part, stem in ANNOTATION_FILES.items():
        for root, folder, suffix in itertools.product(roots, (".", "Anno", "Eval"), (".txt", ".csv")):
            if (file := root / folder / (stem + suffix)).is_file():
                found.setdefault(part, file)
    return found
