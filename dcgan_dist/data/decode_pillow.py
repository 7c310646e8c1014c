"""JPEG to pixels with Pillow, for machines without DALI. The same pixels to 1/255."""

from __future__ import annotations

import io
import math
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.config import Crop
from dcgan_dist.data.crop import crop_box
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import ShardError

BATCHES_AHEAD = 2


def decode_with_pillow(
    shards: MappedShards, batches: Iterable[Sequence[int]], size: int, crop: Crop, device: torch.device, threads: int
) -> Iterator[Tensor]:
    """For each batch of sample numbers its images, uint8 [n, size, size, 3] on `device`, decoded ahead in threads.

    Raises ShardError naming an image that cannot be decoded.
    """

    def one(sample: int) -> np.ndarray:
        try:
            return crop_and_resize(shards.jpeg(sample).tobytes(), size, crop)
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise ShardError(f"{shards.name(sample)}: cannot be decoded ({error}); prepare the shards again") from None

    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes and resizes without holding the interpreter
        waiting: deque[list[Future[np.ndarray]]] = deque()
        for batch in batches:
            waiting.append([pool.submit(one, sample) for sample in batch])
            if len(waiting) > BATCHES_AHEAD:
                yield _collect(waiting.popleft(), device)
        while waiting:
            yield _collect(waiting.popleft(), device)


def crop_and_resize(jpeg: bytes, size: int, crop: Crop) -> np.ndarray:
    """Decodes one JPEG to uint8 [size, size, 3]: the cropped part, shrunk with an antialiasing triangle filter."""
    image = Image.open(io.BytesIO(jpeg)).convert("RGB")
    top, left, bottom, right = crop_box(crop, image.height, image.width)
    # Where the filter reaches over the image's edge, DALI repeats the edge and Pillow leaves pixels out. With the edge
    # repeated beforehand both see the same.
    reach = math.ceil(max(1.0, (bottom - top) / size, (right - left) / size)) + 1
    padded = np.pad(np.asarray(image), ((reach, reach), (reach, reach), (0, 0)), mode="edge")
    box = (left + reach, top + reach, right + reach, bottom + reach)
    return np.asarray(Image.fromarray(padded).resize((size, size), Image.Resampling.BILINEAR, box=box))


def _collect(images: list[Future[np.ndarray]], device: torch.device) -> Tensor:
    return torch.from_numpy(np.stack([image.result() for image in images])).to(device)
