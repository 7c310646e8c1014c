"""Grids are encoded and written, trackers told and seconds counted beside the training."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from dcgan_dist.distributed.world import World
from dcgan_dist.run.checkpoint import Checkpointer
from dcgan_dist.tracking.figures import StageClock
from dcgan_dist.tracking.tracker import Row, Trackers
from dcgan_dist.training.samples import MOST_PENDING_GRIDS, GridWriter
from tests.saved_checkpoints import saved_at

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


class SlowPixels:
    """A grid that a device is not done with until `ready` is set."""

    def __init__(self) -> None:
        self.ready = threading.Event()

    def __call__(self) -> Tensor:
        assert self.ready.wait(20)
        return torch.full((4, 3, 8, 8), 77, dtype=torch.uint8)


class Noting:
    """A tracker that notes what it is told, each time after `may_go_on` is set."""

    def __init__(self) -> None:
        self.may_go_on = threading.Event()
        self.told: list[str] = []

    def _note(self, what: str) -> None:
        assert self.may_go_on.wait(20)
        self.told.append(what)

    def log(self, row: Row) -> None:
        self._note(f"row {row['images_seen']}")

    def image(self, name: str, path: Path, images_seen: int) -> None:
        assert path.exists()
        self._note(f"{name} {images_seen}")

    def checkpoint(self, path: Path, images_seen: int) -> None:
        self._note(f"checkpoint {images_seen}")

    def alert(self, title: str, text: str) -> None:
        self._note(title)

    def close(self, status: str, warnings: Sequence[str] = ()) -> None:
        self._note(status)


def test_training_goes_on_while_a_grid_is_written(tmp_path: Path) -> None:
    grids, pixels, path = GridWriter(), SlowPixels(), tmp_path / "grid.png"
    written = grids.save(pixels, path)  # would wait 20 seconds and fail if it wrote the file itself
    assert not written.done() and not path.exists()
    pixels.ready.set()
    grids.wait_for_those_so_far()()
    with Image.open(path) as grid:
        assert grid.getpixel((4, 4)) == (77, 77, 77)


def test_grids_that_pile_up_are_waited_for(tmp_path: Path) -> None:
    grids, pixels = GridWriter(), SlowPixels()
    for number in range(MOST_PENDING_GRIDS):
        grids.save(pixels, tmp_path / f"{number}.png")
    threading.Timer(0.2, pixels.ready.set).start()
    grids.save(pixels, tmp_path / "one more.png")
    assert (tmp_path / "0.png").exists()


def test_a_grid_that_the_disk_does_not_take_costs_a_line(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "file").write_text("")
    grids, pixels = GridWriter(), SlowPixels()
    pixels.ready.set()
    with caplog.at_level(logging.WARNING):
        assert grids.save(pixels, tmp_path / "file" / "grid.png").result() is False
    (line,) = caplog.messages
    assert "could not write" in line and "training goes on" in line


def test_a_checkpoint_is_not_there_before_the_grids_drawn_before_it(tmp_path: Path) -> None:
    """A run killed after the checkpoint goes on behind those grids and would never draw them again."""
    grids, pixels = GridWriter(), SlowPixels()
    checkpointer = Checkpointer(tmp_path / "checkpoints", 3, 0, ALONE)
    grids.save(pixels, tmp_path / "grid.png")
    checkpointer.save_in_background(saved_at(10), before=grids.wait_for_those_so_far())
    time.sleep(0.2)
    assert not list((tmp_path / "checkpoints").glob("*.pt"))
    pixels.ready.set()
    checkpointer.wait()
    assert (tmp_path / "grid.png").exists()
    assert [path.name for path in (tmp_path / "checkpoints").glob("*.pt")] == ["000000010.pt"]


def test_training_does_not_wait_for_a_slow_tracker_which_hears_everything_in_order(tmp_path: Path) -> None:
    slow, grids, pixels, path = Noting(), GridWriter(), SlowPixels(), tmp_path / "grid.png"
    trackers = Trackers([], [slow])
    trackers.log({"images_seen": 10})
    trackers.image("grid", path, 10, grids.save(pixels, path))  # is told of the grid once it lies there
    trackers.log({"images_seen": 20})
    trackers.checkpoint(tmp_path, 20)
    assert slow.told == []
    slow.may_go_on.set()
    pixels.ready.set()
    trackers.close("done")
    assert slow.told == ["row 10", "grid 10", "row 20", "checkpoint 20", "done"]


def test_rows_that_a_checkpoint_relies_on_are_written_at_once() -> None:
    rows, slow = Noting(), Noting()
    rows.may_go_on.set()
    trackers = Trackers([rows], [slow])
    trackers.log({"images_seen": 10})
    assert rows.told == ["row 10"] and slow.told == []
    slow.may_go_on.set()
    trackers.close("done")


def test_the_stages_of_a_run_add_up_to_the_time_since_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "monotonic", lambda: now)
    monkeypatch.setattr("dcgan_dist.tracking.figures._age_of_process", lambda: 2.0)
    clock = StageClock()
    for stage, seconds in (("decode", 3.0), ("train", 5.0), ("train", 7.0)):
        now += 1.0
        with clock.during(stage):
            now += seconds
    assert clock.seconds() == {"start": 5.0, "decode": 3.0, "train": 12.0}
    assert str(clock) == "20 s: start 5.0, decode 3.0, train 12.0"
