"""Which image is seen when, by which rank: pure functions of the seed and the position in the run.

Position p counts images over all ranks from the start of the run. Epoch e is positions e*N to (e+1)*N - 1 and goes
through all N images once, in an order of its own. A step takes the next `global_batch` positions, cut into one
consecutive share a rank. So the order is the same on any number of ranks, and `images_seen` is all there is to resume.
"""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor

from dcgan_dist.base.counter_random import stream_seed, words


def share(global_batch: int, rank: int, ranks: int) -> tuple[int, int]:
    """First position within a global batch, and number of images, of a rank; shares differ by at most one image."""
    first = global_batch * rank // ranks
    return first, global_batch * (rank + 1) // ranks - first


def sample_ids(seed: int, num_samples: int, first: int, count: int) -> Tensor:
    """The images at positions `first` to `first + count - 1`: int64 [count], each in [0, num_samples)."""
    parts = []
    while count:
        epoch, start = divmod(first, num_samples)
        parts.append(epoch_order(seed, num_samples, epoch)[start : start + count])
        first, count = first + len(parts[-1]), count - len(parts[-1])
    return torch.cat(parts)


def flips(seed: int, first: int | Tensor, count: int, device: torch.device) -> Tensor:
    """Whether the images at these positions are mirrored: bool [count] on `device`, half of them true."""
    return words(seed, "flip", first, count, device) < 0


@lru_cache(maxsize=2)  # a batch may reach into the next epoch
def epoch_order(seed: int, num_samples: int, epoch: int) -> Tensor:
    """All images in the order in which an epoch goes through them: int64 [num_samples]."""
    random = torch.Generator().manual_seed(stream_seed(seed, "order", epoch))
    return torch.randperm(num_samples, generator=random)
