"""Scalars and grids for TensorBoard, against the number of images seen."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

from dcgan_dist.tracking.tracker import Row


class TensorBoardTracker:
    """Writes event files; TensorBoard hides what a resumed run will write again."""

    def __init__(self, folder: Path, images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=images_seen + 1, flush_secs=15)

    def log(self, row: Row) -> None:
        """One point on each curve."""
        for name, value in row.items():
            if "/" in name:
                self._writer.add_scalar(name, value, int(row["images_seen"]))

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """One picture at the slider position `images_seen`."""
        self._writer.add_image(name, np.asarray(Image.open(path)), images_seen, dataformats="HWC")

    def close(self, status: str) -> None:
        """Flushes the event file."""
        self._writer.close()
