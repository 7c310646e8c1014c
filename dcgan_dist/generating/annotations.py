"""Which attributes an image of the shards shows, as `data_prep.celeba` has put them beside it."""

from __future__ import annotations

import difflib

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.data.shard_index import AnnotatedShards, attributes_of, read_annotations


def attribute_labels(shards: AnnotatedShards, attribute: str, count: int) -> Tensor:
    """Whether each of the first `count` images shows the attribute: bool [count].

    Raises UserError if the shards do not say, or there is no attribute of this name.
    """
    labels = []
    for annotation in read_annotations(shards, count):
        attributes = attributes_of(annotation)
        if not attributes:
            raise UserError(
                f"{shards.folder}: its images have no attributes; "
                "prepare it again with list_attr_celeba.txt beside the images"
            )
        if attribute not in attributes:
            near = difflib.get_close_matches(attribute, attributes, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(attributes))}"
            raise UserError(f"--arithmetic {attribute}: no such attribute; {hint}")
        labels.append(attributes[attribute])
    return torch.tensor(labels)
