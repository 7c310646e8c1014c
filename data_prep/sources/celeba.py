"""CelebA as people have it: the official folders, torchvision's folder, the zip, or Kaggle's copy.

    official     Img/img_align_celeba/ or Img/img_align_celeba.zip, Anno/list_attr_celeba.txt and so on, Eval/
    torchvision  celeba/img_align_celeba/ or celeba/img_align_celeba.zip, and the annotation files beside it
    Kaggle       img_align_celeba/img_align_celeba/, and list_attr_celeba.csv, ... with commas and a header

This file owns where things lie; `celeba_images` reads the images, `annotations` the rest.
"""

from __future__ import annotations

import filecmp
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from data_prep.sources.annotations import ANNOTATION_FILES
from data_prep.sources.celeba_images import ImageFolder, ImageZip, SourceImage
from data_prep.sources.downloads import first_part_of, how_to_join
from data_prep.sources.packed_table import PackedTable
from data_prep.sources.zip_members import ALIGNED, refuse_twins
from dcgan_dist.base.errors import UserError

WHERE_TO_GET_IT = (
    "Get CelebA at https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html: img_align_celeba.zip (no need to unpack it), "
    "list_attr_celeba.txt and list_eval_partition.txt, and if you want them in the shards identity_CelebA.txt, "
    "list_landmarks_align_celeba.txt, list_bbox_celeba.txt; put them into one folder"
)

_IMAGE_FOLDERS = (f"{ALIGNED}/{ALIGNED}", ALIGNED, f"Img/{ALIGNED}")
_IMAGE_ZIPS = (f"{ALIGNED}.zip", f"Img/{ALIGNED}.zip")
_SAFE_NAME = re.compile(r"[A-Za-z0-9_-]{1,80}\.jpg")  # one dot: the tar's key must end where the extension begins


@dataclass(frozen=True)
class Source:
    """Where a copy of CelebA, or of drawn faces in its layout, keeps its parts."""

    dataset: str
    images: ImageFolder | ImageZip
    annotation_files: dict[str, Path]

    def list_images(self) -> PackedTable[SourceImage]:
        """All images, sorted by name.

        Raises UserError for a bad zip, for a name that two images have, and for one that could not stand in a shard.
        """
        images = PackedTable(SourceImage, self.images.images())
        if not isinstance(self.images, ImageZip) and _may_have_twins(images):
            refuse_twins(self.images.path, ((image.name, image.name) for image in images))
        if unsafe := next((image.name for image in images if not _SAFE_NAME.fullmatch(image.name)), None):
            raise UserError(f"{self.images.path}: {unsafe!r} is no name for an image; expected is one like 000001.jpg")
        return images


def _may_have_twins(images: PackedTable[SourceImage]) -> bool:
    """Whether there may be names that differ only in case; numbers take less memory than names."""
    import numpy as np

    hashes = np.sort(np.fromiter((hash(image.name.lower()) for image in images), np.int64, len(images)))
    return bool((hashes[1:] == hashes[:-1]).any())


def find_source(path: Path) -> Source:
    """Recognises the layout. Raises OSError, and UserError if there are no images or it is unclear which are meant."""
    if not path.exists():
        raise UserError(f"{path}: no such file or folder. {WHERE_TO_GET_IT}")
    roots = [path, path / "celeba"] if path.is_dir() else [path.parent]
    images = _find_images(roots) if path.is_dir() else ImageZip(path)
    if images is None:
        if joining := next(_parts(roots), None):
            raise UserError(joining)
        missing = "img_align_celeba/ with JPEG files nor img_align_celeba.zip"
        raise UserError(f"{path}: holds neither {missing}. {WHERE_TO_GET_IT}")
    for place in (images.path.absolute(), images.path.resolve()):  # where a link is, and where it leads
        above = place.parent  # --source may be the folder of images itself, or Img/ of the official layout
        while above.name in (ALIGNED, "Img"):
            above = above.parent
        roots.append(above)
    dataset = "synthetic" if any((root / "synthetic.json").is_file() for root in roots) else "celeba"
    return Source(dataset, images, _find_annotations(roots))


def _find_images(roots: list[Path]) -> ImageFolder | ImageZip | None:
    """The first place of the layout that holds images. Raises UserError if a second one holds others."""
    folders = [root / name for root, name in itertools.product(roots, _IMAGE_FOLDERS)]
    zips = [root / name for root, name in itertools.product(roots, _IMAGE_ZIPS)]
    found: list[ImageFolder | ImageZip] = [
        *(ImageFolder(folder) for folder in folders if _holds_images(folder)),
        *(ImageZip(file) for file in zips if file.is_file()),
    ]
    given = roots[0]
    if (not found or given.absolute().name == ALIGNED) and _holds_images(given):
        found.append(ImageFolder(given))
    for other in found[1:]:
        _refuse_other_images(found[0], other)
    return found[0] if found else None


def _refuse_other_images(first: ImageFolder | ImageZip, second: ImageFolder | ImageZip) -> None:
    """Raises UserError, naming both, unless the places hold images of the same names and sizes.

    A zip beside the folder that it was unpacked into is common, and no doubt; nor is one that is damaged.
    """
    if first.path.resolve() == second.path.resolve():
        return
    one = _sizes(first)
    try:
        other = _sizes(second)
    except UserError:
        return
    different = one.keys() ^ other.keys() or {name for name, size in one.items() if other[name] != size}
    if different:
        raise UserError(
            f"{first.path} and {second.path} hold different images ({len(different)} differ, the first is "
            f"{min(different)}); move away the one that is not meant"
        )


def _sizes(images: ImageFolder | ImageZip) -> dict[str, int]:
    return {image.name: images.size(image) for image in images.images()}


def _parts(roots: list[Path]) -> Iterator[str]:
    """For each zip of the layout of which there are only parts, how to join them."""
    for root, name in itertools.product(roots, _IMAGE_ZIPS):
        if (part := first_part_of(root / name)) and (advice := how_to_join(part)):
            yield advice


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and next(ImageFolder(folder).images(), None) is not None


def _find_annotations(roots: list[Path]) -> dict[str, Path]:
    """The file of each part. Raises UserError if there are two of one name that differ."""
    found: dict[str, Path] = {}
    for part, stem in ANNOTATION_FILES.items():
        for root, folder, suffix in itertools.product(roots, (".", "Anno", "Eval"), (".txt", ".csv")):
            if (file := root / folder / (stem + suffix)).is_file():
                first = found.setdefault(part, file)
                if first.name == file.name and not filecmp.cmp(first, file, shallow=False):
                    raise UserError(f"{first} and {file} differ; move away the one that does not belong to the images")
    return found
