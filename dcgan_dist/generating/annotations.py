"""Which attributes an image of the shards shows, as `data_prep.celeba` has put them beside it."""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.data.loader import Shards
from dcgan_dist.data.shard_format import ShardError, index_name
from dcgan_dist.data.shard_index import read_index


def attribute_labels(shards: Shards, attribute: str, count: int) -> Tensor:
    """Whether each of the first `count` images shows the attribute: bool [count].

    Raises UserError if the shards do not say, or there is no attribute of this name.
    """
    labels, folder = [], shards.folder
    for sample in _first_annotations(shards, count):
        attributes = sample.get("attributes") if isinstance(sample, dict) else None
        if not isinstance(attributes, dict) or not attributes:
            raise UserError(
                f"{folder}: its images have no attributes; prepare it again with list_attr_celeba.txt beside the images"
            )
        if attribute not in attributes:
            near = difflib.get_close_matches(attribute, attributes, n=1, cutoff=0.4)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(sorted(attributes))}"
            raise UserError(f"--arithmetic {attribute}: no such attribute; {hint}")
        labels.append(bool(attributes[attribute]))
    return torch.tensor(labels)


def _first_annotations(shards: Shards, count: int) -> Iterator[Any]:
    folder = shards.folder
    for number, shard in enumerate(shards.manifest.shards):
        with shards.open_tar(number) as file:
            for sample in read_index(folder / index_name(shard.file))[:count]:
                file.seek(sample.annotation_offset)
                try:
                    yield json.loads(file.read(sample.annotation_size) or b"{}")
                except ValueError:
                    where = f"{folder / shard.file}: {sample.key}.json"
                    raise ShardError(f"{where} is not JSON; see: python -m data_prep.verify {folder}") from None
        count -= min(count, shard.samples)
        if not count:
            return
