"""JPEG to pixels with Pillow, for machines without DALI; agrees with DALI on the CPU to 1/255."""

from __future__ import annotations

import io
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
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
    copying = copying_stream(device)
    with ThreadPoolExecutor(threads) as pool:  # Pillow decodes and resizes without holding the interpreter
        for images in ahead([pool.submit(decode_one, shards, one, size, crop) for one in batch] for batch in batches):
            yield to_device(np.stack([image.result() for image in images]), copying)


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


def copying_stream(device: torch.device) -> torch.cuda.Stream | None:
    """A stream of its own for pixels on their way to a GPU; None on a CPU.

    On the current one they would come after the training step that is queued there, and the host would wait for both.
    """
    return torch.cuda.Stream(device) if device.type == "cuda" else None


def to_device(images: np.ndarray, copying: torch.cuda.Stream | None) -> Tensor:
    """The images as a tensor, which on a GPU is copied there on the stream `copying`; the host does not wait for it."""
    pixels = torch.from_numpy(images)
    if copying is None:
        return pixels
    with torch.cuda.stream(copying):
        pixels = pixels.pin_memory().to(copying.device, non_blocking=True)
    return hand_over(pixels, copying)


def hand_over(pixels: Tensor, copying: torch.cuda.Stream) -> Tensor:
    """Lets the current stream go on with `pixels`, made on the stream `copying`, as soon as they are there."""
    current = torch.cuda.current_stream(copying.device)
    current.wait_stream(copying)
    pixels.record_stream(current)  # its memory may be given away only when the step is through with it
    return pixels
