"""Images that were stored at the size of training, without compression: nothing is left to decode but to copy."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from dcgan_dist.config import Crop
from dcgan_dist.data.crop import crop_box
from dcgan_dist.data.decode_pillow import ahead, copying_stream, decode_one, to_device
from dcgan_dist.data.mapped_shards import EncodedImages
from dcgan_dist.data.plain_png import plain_png_bytes, read_plain_png
from dcgan_dist.data.shard_format import Manifest


def are_plain(manifest: Manifest, image_bytes: np.ndarray, size: int, crop: Crop) -> bool:
    """Whether all images of some shards, int64 [samples] bytes long, are plain PNGs that need no crop nor resizing."""
    if not manifest.smallest_image == manifest.largest_image == (size, size):
        return False
    return crop_box(crop, size, size) == (0, 0, size, size) and bool((image_bytes == plain_png_bytes(size)).all())


def decode_plain(
    shards: EncodedImages, batches: Iterable[Sequence[int]], size: int, crop: Crop, device: torch.device, threads: int
) -> Iterator[Tensor]:
    """For each batch of sample numbers its images, uint8 [n, size, size, 3] on `device`, read ahead in a thread.

    The pixels are those of the other decoders. Raises ShardError naming an image that cannot be decoded.
    """

    def read(batch: Sequence[int]) -> np.ndarray:
        images = np.empty((len(batch), size, size, 3), np.uint8)
        for image, sample in zip(images, batch, strict=True):
            pixels = read_plain_png(shards.jpeg(sample), size)
            image[:] = decode_one(shards, sample, size, crop) if pixels is None else pixels
        return images

    copying = copying_stream(device)
    with ThreadPoolExecutor(1) as pool:  # more would wait for each other's Python
        for images in ahead(pool.submit(read, batch) for batch in batches):
            yield to_device(images.result(), copying)
