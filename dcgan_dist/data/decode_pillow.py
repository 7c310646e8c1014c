"""JPEG to pixels with Pillow, for machines without DALI; agrees with DALI on the CPU to 1/255."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.config import Crop
from dcgan_dist.data.crop import crop_and_resize
from dcgan_dist.data.mapped_shards import EncodedImages
from dcgan_dist.data.shard_format import ShardError

BATCHES_AHEAD = 2

T = TypeVar("T")


def decode_with_pillow(
    shards: EncodedImages, batches: Iterable[Sequence[int]], size: int, crop: Crop, device: torch.device, threads: int
) -> Iterator[Tensor]:
    """For each batch of sample numbers its images, uint8 [n, size, size, 3] on `device`, decoded ahead in threads.

    Raises ShardError naming an image that cannot be decoded.
    """
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes and resizes without holding the interpreter
        for images in ahead([pool.submit(decode_one, shards, one, size, crop) for one in batch] for batch in batches):
            yield _collect(images, device)


def ahead(begun: Iterable[T]) -> Iterator[T]:
    """What is begun by being taken, each with BATCHES_AHEAD after it begun too."""
    waiting: deque[T] = deque()
    for one in begun:
        waiting.append(one)
        if len(waiting) > BATCHES_AHEAD:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


def decode_one(shards: EncodedImages, sample: int, size: int, crop: Crop) -> np.ndarray:
    """One sample as uint8 [size, size, 3]. Raises ShardError naming it if it cannot be decoded."""
    try:
        return decode(shards.jpeg(sample).tobytes(), size, crop)
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ShardError(f"{shards.name(sample)}: cannot be decoded ({error}); prepare the shards again") from None


def decode(content: bytes, size: int, crop: Crop) -> np.ndarray:
    """One image file as uint8 [size, size, 3]. Raises as Pillow does, in half a dozen ways."""
    return crop_and_resize(Image.open(io.BytesIO(content)).convert("RGB"), size, crop)


def _collect(images: list[Future[np.ndarray]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack([image.result() for image in images])).to(device)
