"""Scalars and grids for TensorBoard, against the number of images seen."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from dcgan_dist.tracking.panels import PANELS, QUALITY
from dcgan_dist.tracking.tracker import Row


def custom_layout() -> dict[str, dict[str, list[str | list[str]]]]:
    """The tab "Custom Scalars": the curves that belong together on one chart, in the order of the report."""
    panels = {panel.title: ["Multiline", list(panel.figures)] for panel in PANELS}
    quality = {title: ["Multiline", [f"quality/{name}"]] for name, (title, _) in QUALITY.items()}
    return {"Training": panels, "Quality": quality}


class TensorBoardTracker:
    """Writes event files; TensorBoard hides what a resumed run will write again."""

    def __init__(self, folder: Path, images_seen: int) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self._writer = SummaryWriter(str(folder), purge_step=images_seen + 1, flush_secs=15)
        self._writer.add_custom_scalars(custom_layout())

    def log(self, row: Row) -> None:
        """Adds one point to each curve."""
        for name, value in row.items():
            if "/" in name:
                self._writer.add_scalar(name, value, int(row["images_seen"]))

    def image(self, name: str, path: Path, images_seen: int) -> None:
        """One picture at the slider position `images_seen`, as JPEG.

        TensorBoard's writer adds up a checksum over every byte in Python, and meanwhile the training thread waits for
        its turn. The PNG that add_image would write has four times as many bytes.
        """
        from tensorboard.compat.proto.summary_pb2 import Summary  # type: ignore[attr-defined]

        encoded = io.BytesIO()
        with Image.open(path) as picture:
            size = {"width": picture.width, "height": picture.height, "colorspace": 3}
            picture.convert("RGB").save(encoded, "JPEG", quality=90)
        image = Summary.Image(encoded_image_string=encoded.getvalue(), **size)
        assert self._writer.file_writer
        self._writer.file_writer.add_summary(Summary(value=[Summary.Value(tag=name, image=image)]), images_seen)

    def checkpoint(self, path: Path, images_seen: int) -> None:
        """Does nothing: TensorBoard takes no checkpoints."""

    def alert(self, title: str, text: str) -> None:
        """One line of the tab "Text"."""
        self._writer.add_text("warnings", f"{title}: {text}")

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        """Flushes the event file."""
        self._writer.close()
