"""What the networks are told of an image beside its latent: which attributes it shows, or of which class it is."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.data.sample_order import sample_ids
from dcgan_dist.data.shard_index import AnnotatedShards, attributes_of, read_annotations
from dcgan_dist.distributed.world import World

NO_CLASSES, STORED_CLASS = "none", "class"
"""What `model.classes` may be besides names of attributes."""

MOST_CLASSES = 1000
TYPICAL_IMAGES = 1024
MOST_LISTED = 40
ANY = -1


@dataclass(frozen=True)
class Classes:
    """The classes of a run, and which of them each of some images shows."""

    names: tuple[str, ...]
    exclusive: bool
    """No image is of two of them; otherwise they are attributes, of which an image may show any."""
    rows: Tensor
    """The images' conditions, uint8 [images, classes]: 1 where an image shows a class, else 0."""

    @classmethod
    def from_dict(cls, given: dict[str, Any]) -> Classes:
        """What `as_dict` gave. Raises KeyError, TypeError or ValueError if it is none."""
        classes = cls(tuple(given["names"]), bool(given["exclusive"]), given["rows"])
        sound = isinstance(classes.rows, Tensor) and classes.rows.ndim == 2 and classes.rows.dtype == torch.uint8
        if not sound or classes.rows.shape[1] != len(classes.names) or not len(classes.rows):
            raise ValueError("its classes do not fit each other")
        return classes

    def as_dict(self) -> dict[str, Any]:
        """Plain values, for a checkpoint."""
        return {"names": list(self.names), "exclusive": self.exclusive, "rows": self.rows.cpu()}

    def __len__(self) -> int:
        return len(self.names)

    def of(self, images: list[int]) -> Classes:
        """The same classes with the conditions of these images, in their order."""
        return replace(self, rows=self.rows[images])

    def typical(self, seed: int) -> Classes:
        """The same classes with the conditions of the first images of a run, few enough for a checkpoint."""
        return self.of(sample_ids(seed, len(self.rows), 0, min(TYPICAL_IMAGES, len(self.rows))).tolist())

    def rows_in_turn(self, first: int, count: int) -> Tensor:
        """Conditions from position `first` on, of one image after the other and again: uint8 [count, classes]."""
        return self.rows[torch.arange(first, first + count) % len(self.rows)]

    def beside(self, latents: Tensor, first: int) -> Tensor:
        """Latents from position `first` on, [n, size], with `rows_in_turn` behind them: [n, size + classes]."""
        return torch.cat([latents, self.rows_in_turn(first, len(latents)).to(latents)], dim=1)

    def on_a_grid(self) -> tuple[list[str], Tensor]:
        """What the rows of a grid show, in words and as conditions [rows, classes]: each class by itself.

        Attributes begin with a row of images that show none of them.
        """
        each = torch.eye(len(self))
        if self.exclusive:
            return list(self.names), each
        return ["none", *self.names], torch.cat([torch.zeros(1, len(self)), each])

    def wanted(self, text: str) -> Tensor:
        """What `--class` asks for, as `Smiling=1,Male=0`, or the name of a class: 1, 0 or ANY for each class.

        Raises UserError if there is no such class.
        """
        if self.exclusive:
            self._assert_known(text, text)
            return torch.tensor([int(name == text) for name in self.names])
        found = torch.full([len(self)], ANY)
        for part in text.split(","):
            name, _, value = (word.strip() for word in part.partition("="))
            self._assert_known(name, text)
            if value not in ("", "0", "1"):
                raise UserError(f"--class {text}: {name} can be 1 or 0, as in --class {self.names[0]}=1")
            found[self.names.index(name)] = int(value or 1)
        return found

    def assert_named(self, names: list[str], advice: str) -> None:
        """Raises UserError if the classes of a checkpoint, `names`, are others than these."""
        if list(self.names) != names:
            ours, theirs = (listed(some) or "none" for some in (self.names, names))
            raise UserError(f"the classes of these images are {ours}, those of the checkpoint {theirs}; {advice}")

    def _assert_known(self, name: str, text: str) -> None:
        if name not in self.names:
            raise UserError(f"--class {text}: {no_such(name, self.names, 'class')}")

    def only(self, wanted: Tensor) -> Classes:
        """The same images, as if they showed what is `wanted`."""
        return replace(self, rows=torch.where(wanted == ANY, self.rows, wanted.to(self.rows)))

    def showing(self, wanted: Tensor) -> list[int]:
        """Numbers of the images that show what is `wanted`."""
        fits = ((self.rows == wanted) | (wanted == ANY)).all(dim=1)
        return fits.nonzero().flatten().tolist()


def no_such(name: str, names: tuple[str, ...], kind: str) -> str:
    """The end of a message about a name that is none of `names`: what is near, and what there is."""
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.4)
    return f"there is no {kind} {name!r}; {f'did you mean {near[0]}? ' if near else ''}there are {listed(names)}"


def listed(names: Sequence[str]) -> str:
    """Names for a message: all of CelebA's, and of many more the first."""
    return ", ".join(map(str, names[:MOST_LISTED])) + (", ..." if len(names) > MOST_LISTED else "")


def classes_of_shards(shards: AnnotatedShards, setting: str, world: World) -> Classes | None:
    """What `model.classes` asks for, read from the annotations of all images; None if it asks for nothing.

    Rank 0 reads for all; tars behind a URL are fetched for it. Raises UserError, on every rank, if the images have no
    such classes.
    """
    if setting == NO_CLASSES:
        return None
    return world.broadcast_object(world.on_main(_read, shards, setting))


def _read(shards: AnnotatedShards, setting: str) -> Classes:
    annotations = read_annotations(shards, shards.manifest.samples)
    complaint = f"model.classes = {setting}: {shards.folder}"
    if setting == STORED_CLASS:
        return _of_stored_class(annotations, complaint)
    return _of_attributes(annotations, tuple(name.strip() for name in setting.split(",")), complaint)


def _of_stored_class(annotations: Iterator[Any], complaint: str) -> Classes:
    labels = [str(sample.get("class") or "") if isinstance(sample, dict) else "" for sample in annotations]
    names = tuple(sorted(set(labels) - {""}))
    if not 2 <= len(names) <= MOST_CLASSES:
        raise UserError(
            f"{complaint} has images of {len(names)} classes, from 2 to {MOST_CLASSES} can be told apart; "
            "data_prep.images stores an image's first folder as its class"
        )
    column = {name: number for number, name in enumerate(names)} | {"": len(names)}
    rows = torch.zeros(len(labels), len(names) + 1, dtype=torch.uint8)
    rows.scatter_(1, torch.tensor([column[label] for label in labels])[:, None], 1)
    return Classes(names, True, rows[:, :-1].contiguous())


def _of_attributes(annotations: Iterator[Any], names: tuple[str, ...], complaint: str) -> Classes:
    rows = []
    for annotation in annotations:
        attributes = attributes_of(annotation)
        if not attributes:
            raise UserError(
                f"{complaint} has images without attributes; prepare it again with list_attr_celeba.txt beside the "
                "images, or leave --model.classes out"
            )
        if unknown := [name for name in names if name not in attributes]:
            raise UserError(f"{complaint}: {no_such(unknown[0], tuple(sorted(attributes)), 'attribute')}")
        rows.append(bytes(attributes[name] for name in names))
    return Classes(names, False, torch.frombuffer(bytearray(b"".join(rows)), dtype=torch.uint8).view(-1, len(names)))
