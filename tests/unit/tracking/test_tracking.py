"""What the trackers write, read back: by us and by TensorBoard's own reader."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.distributed.world import World
from dcgan_dist.tracking.figures import MetricWindow, Throughput
from dcgan_dist.tracking.tensorboard import TensorBoardTracker
from dcgan_dist.tracking.tracker import ConsoleTracker, JsonlTracker, Row, Trackers, last_images_seen

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def row(images_seen: int) -> Row:
    return {
        "step": images_seen // 10,
        "images_seen": images_seen,
        "loss/discriminator": 1 / images_seen,
        "loss/generator": 2.0,
        "score/real": 0.75,
        "score/fake": 0.25,
        "speed/images_per_second": 1000.0,
        "memory/peak_gib": 0.5,
    }


def rows_in(path: Path) -> list[int]:
    return [json.loads(line)["images_seen"] for line in path.read_text().splitlines()]


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "grid.png"
    Image.fromarray(np.full((6, 8, 3), 77, dtype=np.uint8)).save(path)
    return path


# --- metrics.jsonl ----------------------------------------------------------------------------------------------------


def test_each_row_is_a_line_that_is_there_at_once(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    tracker = JsonlTracker(path, 0)
    tracker.log(row(10))
    tracker.log(row(20))
    assert [json.loads(line) for line in path.read_text().splitlines()] == [row(10), row(20)]
    tracker.close("done")


def test_rows_after_the_checkpoint_are_dropped_because_they_come_again(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text("".join(json.dumps(row(seen)) + "\n" for seen in (10, 20, 30, 40)))
    tracker = JsonlTracker(path, 20)
    tracker.log(row(30))
    tracker.close("done")
    assert rows_in(path) == [10, 20, 30]


@pytest.mark.parametrize("rest", ['{"step": 3, "images_', "\x00\x00\x00", "[1, 2]", "{}", '"text"', "\xff\xfe"])
def test_what_a_crash_left_of_a_line_is_dropped(tmp_path: Path, rest: str) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_bytes((json.dumps(row(10)) + "\n" + rest).encode("latin-1"))
    assert last_images_seen(path) == 10
    tracker = JsonlTracker(path, 10)
    tracker.log(row(20))
    tracker.close("done")
    assert rows_in(path) == [10, 20]


def test_the_last_row_of_no_file_is_none(tmp_path: Path) -> None:
    assert last_images_seen(tmp_path / "none.jsonl") == -1


# --- means and speed --------------------------------------------------------------------------------------------------


def test_means_are_weighted_by_images_and_start_anew_after_each_row() -> None:
    window = MetricWindow(["loss", "probability"], torch.device("cpu"))
    window.add([torch.tensor(1.0), torch.tensor(0.5)], images=30)
    window.add([torch.tensor(5.0), torch.tensor(0.7)], images=10)
    assert window.take_means(ALONE) == pytest.approx({"loss": 2.0, "probability": 0.55})
    window.add([torch.tensor(7.0), torch.tensor(0.1)], images=3)
    assert window.take_means(ALONE) == pytest.approx({"loss": 7.0, "probability": 0.1})


def test_small_losses_are_not_lost_among_many_steps() -> None:
    window = MetricWindow(["loss"], torch.device("cpu"))
    for _ in range(20_000):
        window.add([torch.tensor(0.1)], images=128)
    assert window.take_means(ALONE)["loss"] == pytest.approx(0.1, rel=1e-7)


def test_speed_counts_the_images_since_the_last_row_and_no_pauses() -> None:
    throughput = Throughput(torch.device("cpu"), ranks=4)
    start = time.perf_counter()
    throughput.add(100)
    with throughput.waiting_for_data():
        time.sleep(0.02)
    with throughput.paused("samples"):
        time.sleep(0.2)
    figures = throughput.take_figures()
    training_seconds = time.perf_counter() - start - 0.2
    assert figures["speed/images_per_second"] >= 0.9 * 100 / training_seconds
    assert figures["speed/images_per_second_per_rank"] == figures["speed/images_per_second"] / 4
    assert 0 < figures["speed/data_wait_fraction"] <= 1
    assert figures["memory/peak_gib"] > 0
    assert throughput.take_figures()["speed/images_per_second"] == 0


# --- many trackers as one ---------------------------------------------------------------------------------------------


class FullDisk:
    """A tracker that cannot write."""

    def log(self, row: Row) -> None:
        raise OSError(28, "No space left on device")

    def image(self, name: str, path: Path, images_seen: int) -> None:
        raise OSError(28, "No space left on device")

    def checkpoint(self, path: Path, images_seen: int) -> None:
        raise OSError(28, "No space left on device")

    def alert(self, title: str, text: str) -> None:
        raise OSError(28, "No space left on device")

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        raise OSError(28, "No space left on device")


def test_a_tracker_that_cannot_write_is_told_of_once_and_stops_no_other(
    tmp_path: Path, picture: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    trackers = Trackers([FullDisk(), JsonlTracker(path, 0)])
    with caplog.at_level(logging.WARNING):
        for seen in (10, 20, 30):
            trackers.log(row(seen))
            trackers.image("grid", picture, seen)
            trackers.checkpoint(picture, seen)
        trackers.close("done")
    assert rows_in(path) == [10, 20, 30]
    assert [record.getMessage() for record in caplog.records] == [
        "FullDisk cannot write ([Errno 28] No space left on device); training goes on without it"
    ]


def test_where_the_output_is_no_terminal_each_row_is_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    console = ConsoleTracker(total_images=12_000, images_seen=0)
    console.advance(5)
    console.log(row(2000))
    console.close("done")
    (line,) = capsys.readouterr().err.splitlines()
    for part in ("2,000/12,000 images", "ETA 0:00:10", "1000 img/s", "G 2.000", "D(x) 0.75", "D(G(z)) 0.25", "0.5 GiB"):
        assert part in line


# --- TensorBoard ------------------------------------------------------------------------------------------------------


def test_tensorboard_reads_curves_and_grids_back(tmp_path: Path, picture: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.custom_scalar.layout_pb2 import Layout  # type: ignore[attr-defined]

    folder = tmp_path / "tensorboard"
    first = TensorBoardTracker(folder, 0)
    for seen in (10, 20, 30):
        first.log(row(seen))
    first.image("samples/real", picture, 0)
    first.close("preempted")
    again = TensorBoardTracker(folder, 20)  # resumed from a checkpoint before the last row
    for seen in (30, 40):
        again.log(row(seen))
    again.close("done")

    events = EventAccumulator(str(folder))
    events.Reload()
    points = [(event.step, event.value) for event in events.Scalars("loss/discriminator")]
    assert points == [(seen, pytest.approx(1 / seen)) for seen in (10, 20, 30, 40)]
    assert "images_seen" not in events.Tags()["scalars"]
    (grid,) = events.Images("samples/real")
    assert (grid.step, grid.height, grid.width) == (0, 6, 8)
    layout = Layout.FromString(events.Tensors("custom_scalars__config__")[0].tensor_proto.string_val[0])
    assert ["loss/discriminator", "loss/generator"] in [
        list(chart.multiline.tag) for category in layout.category for chart in category.chart
    ]
