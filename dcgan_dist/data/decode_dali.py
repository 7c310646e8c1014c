# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# (DALI makes its types while it is imported.)
"""JPEG to pixels with NVIDIA DALI, on the GPU where there is one. DALI is imported only when this is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.base.errors import in_one_line
from dcgan_dist.config import Crop
from dcgan_dist.data.crop import crop_box
from dcgan_dist.data.decode_pillow import copying_stream, decode, hand_over
from dcgan_dist.data.mapped_shards import EncodedImages
from dcgan_dist.data.shard_format import ShardError

GPU_DECODER = {
    # Without this the GPU takes the nearest chroma sample where a CPU interpolates: up to 5/255 off at 64 pixels.
    "jpeg_fancy_upsampling": True,
    # DALI reserves memory for ImageNet's large photographs; faces of 178x218 need a fraction.
    "device_memory_padding": 1 << 20,
    "host_memory_padding": 1 << 20,
    # At DALI's default of 0.65 the JPEG engine of a GPU decodes that part of each batch and CUDA kernels the rest. They
    # differ by up to 2/255, so an image's pixels would depend on the batch it is decoded in. With 1.0 they do not, and
    # two threads decode as many images as eight do with 0.0.
    "hw_decoder_load": 1.0,
}
"""How DALI decodes on a GPU: all in the JPEG engine, or all in CUDA kernels where there is none.
`python -m benchmarks.decoder_sweep` shows what other settings would bring."""


def decode_with_dali(
    shards: EncodedImages,
    batches: Iterable[Sequence[int]],
    size: int,
    crop: Crop,
    device: torch.device,
    threads: int,
) -> Iterator[Tensor]:
    """For each batch of sample numbers its images, uint8 [n, size, size, 3] on `device`, decoded ahead by DALI.

    Raises ShardError naming an image that cannot be decoded.
    """
    remaining = iter(batches)
    first = next(remaining, None)  # no later batch is larger
    if first is None:
        return
    asked: deque[Sequence[int]] = deque()
    unreadable: list[int] = []

    def jpegs() -> Iterator[list[Any]]:
        for batch in chain([first], remaining):
            images = [shards.jpeg(sample) for sample in batch]
            unreadable.extend(
                sample for sample, image in zip(batch, images, strict=True) if not is_readable(image.data)
            )
            if unreadable:
                return  # DALI could crash on it; the batches before it are still to come
            asked.append(batch)
            yield images

    pipeline = _build_pipeline(jpegs(), size, crop, device, threads, len(first))
    copying = copying_stream(device)
    while (images := _run(pipeline)) is not None:
        if isinstance(images, str):
            # It must be gone before another is made, and before this process ends: it may crash otherwise.
            del pipeline
            raise _name_the_culprit(shards, [sample for batch in asked for sample in batch], size, crop, device, images)
        yield to_torch(images, copying)
        asked.popleft()
    if unreadable:
        raise _undecodable(shards, unreadable[0], size, crop)


def _run(pipeline: Any) -> Any:
    """The next batch, None after the last, or what DALI says is wrong: not its error, which would hold the pipeline."""
    try:
        (images,) = pipeline.run()
        return images
    except StopIteration:
        return None
    except RuntimeError as error:
        return in_one_line(error)


def _build_pipeline(
    jpegs: Iterator[list[Any]], size: int, crop: Crop, device: torch.device, threads: int, largest_batch: int
) -> Any:
    import nvidia.dali.types as types
    from nvidia.dali import fn, pipeline_def

    on_gpu = device.type == "cuda"

    @pipeline_def(batch_size=largest_batch, **pipeline_options(device, threads))
    def decoding() -> Any:
        encoded = fn.external_source(source=jpegs, dtype=types.UINT8, ndim=1, no_copy=True)
        return decode_and_resize(encoded, size, crop, on_gpu)

    pipeline = decoding()
    pipeline.build()
    return pipeline


def pipeline_options(device: torch.device, threads: int) -> dict[str, Any]:
    """Where a pipeline runs, and how: on a CPU DALI's older executor gets through 4 to 9 % more images a second."""
    on_gpu = device.type == "cuda"
    return {"num_threads": threads, "device_id": device.index if on_gpu else None, "exec_dynamic": on_gpu}


def decode_and_resize(
    encoded: Any, size: int, crop: Crop, on_gpu: bool, gpu_decoder: Mapping[str, Any] = GPU_DECODER
) -> Any:
    """The part of a DALI pipeline that turns JPEGs into images, uint8 [size, size, 3], wherever they come from."""
    import nvidia.dali.types as types
    from nvidia.dali import fn, math

    shape = fn.peek_image_shape(encoded, adjust_orientation=False)
    edges = crop_box(crop, shape[0], shape[1], math.min)
    top, left, bottom, right = (fn.cast(edge + 0 * shape[0], dtype=types.FLOAT) for edge in edges)
    images = fn.decoders.image(
        encoded,
        device="mixed" if on_gpu else "cpu",
        output_type=types.RGB,
        adjust_orientation=False,  # Pillow does not turn images by their EXIF data either
        **(gpu_decoder if on_gpu else {}),
    )
    return fn.resize(
        images,
        size=[size, size],
        roi_start=fn.stack(top, left),
        roi_end=fn.stack(bottom, right),
        interp_type=types.INTERP_LINEAR,
        antialias=True,
    )


def to_torch(images: Any, copying: torch.cuda.Stream | None) -> Tensor:
    """A copy, since DALI uses its own memory again for a later batch; on a GPU made on the stream `copying`."""
    if copying is None:
        return torch.from_numpy(images.as_array().copy())
    with torch.cuda.stream(copying):
        pixels = torch.from_dlpack(images.as_tensor()).clone()
    copying.synchronize()  # before DALI may write there again
    return hand_over(pixels, copying)


def _name_the_culprit(
    shards: EncodedImages, samples: Sequence[int], size: int, crop: Crop, device: torch.device, problem: str
) -> ShardError:
    """Finds the image that made a batch fail, by decoding the batch's images one by one."""
    for sample in samples:
        pipeline = _build_pipeline(iter([[shards.jpeg(sample)]]), size, crop, device, 1, 1)
        if isinstance(_run(pipeline), str):
            return _undecodable(shards, sample, size, crop)
    first = shards.name(samples[0]) if samples else shards.folder
    return ShardError(f"{first}, or one of the {len(samples)} after it: cannot be decoded ({problem[-200:]})")


def _undecodable(shards: EncodedImages, sample: int, size: int, crop: Crop) -> ShardError:
    """Returns an error that names an image DALI refuses, with Pillow's reason: DALI gives none."""
    reason = "DALI refuses what other decoders accept"
    try:
        decode(shards.jpeg(sample).tobytes(), size, crop)
    except Exception as error:
        reason = str(error)
    return ShardError(f"{shards.name(sample)}: cannot be decoded ({reason}); prepare the shards again")


PNG = b"\x89PNG\r\n\x1a\n"
_SCAN = 0xDA
_FRAMES = frozenset((0xC0, 0xC1, 0xC2))
_OTHERS = frozenset((0xC4, 0xDB, 0xDD, 0xFE, *range(0xE0, 0xF0)))  # tables, restart interval, comment, applications


def is_readable(content: Sequence[int]) -> bool:
    """Whether `content`, bytes or a memoryview of them, is a PNG, a WebP, or a JPEG with its segments up to a scan."""
    if bytes(content[:8]) == PNG:
        return len(content) >= 33
    if bytes(content[:4]) == b"RIFF":
        return bytes(content[8:12]) == b"WEBP" and len(content) >= 30
    position, end, framed = 2, len(content) - 10, False
    if bytes(content[:2]) != b"\xff\xd8":
        return False
    while position < end and content[position] == 0xFF:
        marker, length = content[position + 1], content[position + 2] << 8 | content[position + 3]
        if marker == _SCAN:
            return framed
        if marker in _FRAMES:
            if framed or not _is_frame(content, position + 4, length - 2):
                return False
            framed = True
        elif marker not in _OTHERS or length < 2:
            return False
        position += 2 + length
    return False


def _is_frame(content: Sequence[int], start: int, length: int) -> bool:
    """Whether a frame's header is whole: 8 bits deep, neither height nor width 0, and what it says of components."""
    if length < 6:
        return False
    depth, height_and_width, count = content[start], content[start + 1 : start + 5], content[start + 5]
    whole = depth == 8 and count in (1, 3, 4) and length == 6 + 3 * count
    return whole and any(height_and_width[:2]) and any(height_and_width[2:])
