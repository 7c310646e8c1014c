"""Frames to a GIF or an MP4 that plays in a loop."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.base.errors import UserError
from dcgan_dist.base.files import atomic_write
from dcgan_dist.base.grid import lay_out
from dcgan_dist.generating.figures import enlarged, enlargement
from dcgan_dist.generating.outputs import Write

FRAMES_PER_SECOND = 20  # a GIF counts hundredths of a second


@contextlib.contextmanager
def gif_file(path: Path, tiles: int) -> Iterator[Write]:
    """A looping GIF, each frame a grid of `tiles` images. Its 256 colours are chosen once, so that nothing flickers."""
    frames: list[Image.Image] = []
    write, rest = _frame_by_frame(tiles, frames.append)
    yield write
    assert not rest
    palette = _common_palette(frames)
    first, *others = [frame.quantize(palette=palette, dither=Image.Dither.NONE) for frame in frames]
    with atomic_write(path) as file:
        first.save(file, format="GIF", save_all=True, append_images=others, duration=1000 // FRAMES_PER_SECOND, loop=0)


@contextlib.contextmanager
def mp4_file(path: Path, tiles: int) -> Iterator[Write]:
    """An H.264 video that every browser and phone plays, each frame a grid of `tiles` images.

    Raises UserError if PyAV is not installed.
    """
    try:
        import av
    except ImportError:
        raise UserError(f"--out {path}: MP4 needs PyAV; pip install av, or choose a name that ends in .gif") from None
    with atomic_write(path) as file, av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options={"crf": "16", "threads": "1"})
        stream.pix_fmt = "yuv420p"

        def add(frame: Image.Image) -> None:
            if not stream.codec_context.is_open:
                stream.width, stream.height = frame.size
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))

        write, rest = _frame_by_frame(tiles, add)
        yield write
        assert not rest
        container.mux(stream.encode(None))


def _frame_by_frame(tiles: int, add: Any) -> tuple[Write, list[Tensor]]:
    """Collects images until a frame is full and hands it to `add`; also the list of those that wait."""
    waiting: list[Tensor] = []

    def write(portion: Tensor) -> None:
        waiting.extend(portion)
        while len(waiting) >= tiles:
            add(_frame(torch.stack(waiting[:tiles])))
            del waiting[:tiles]

    return write, waiting


def _frame(pixels: Tensor) -> Image.Image:
    """A grid as one picture; its sides are even numbers, as H.264 wants them."""
    return enlarged(lay_out(pixels), enlargement(pixels.shape[-1]))


def _common_palette(frames: list[Image.Image]) -> Image.Image:
    some = frames[:: max(1, len(frames) // 8)]
    together = Image.new("RGB", (some[0].width, some[0].height * len(some)))
    for number, frame in enumerate(some):
        together.paste(frame, (0, number * frame.height))
    return together.quantize(256, method=Image.Quantize.MEDIANCUT)
