"""When a rank looks whether it was asked to stop, and which signals it hears."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from dcgan_dist.base.errors import Interrupted
from dcgan_dist.distributed.world import World
from dcgan_dist.run.stop import SIGNALS, StopRequest

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


@pytest.fixture
def handlers() -> Iterator[None]:
    """Puts the test process's own handlers back."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("handlers")
def test_what_nohup_has_turned_off_stays_off() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    StopRequest(Path("STOP"), None, 1).listen()
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    assert callable(signal.getsignal(signal.SIGTERM))


@pytest.mark.parametrize(("step_seconds", "checks"), [(0.01, 2), (0.25, 8), (3.0, 30)])
def test_between_two_checks_lies_a_second_at_most(
    monkeypatch: pytest.MonkeyPatch, step_seconds: float, checks: int
) -> None:
    now = [0.0]
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    stop, looked = StopRequest(Path("no such folder/STOP"), None, most_steps_between_checks=16), []
    monkeypatch.setattr(stop, "_other_reason", lambda: looked.append(now[0]))
    for _ in range(30):
        now[0] += step_seconds
        stop.agreed(ALONE)
    assert len(looked) == checks


def test_before_the_first_step_a_request_is_an_interruption() -> None:
    stop = StopRequest(Path("STOP"), None, 1)
    stop.raise_if_asked()
    stop.reason = "SIGTERM"
    with pytest.raises(Interrupted, match="SIGTERM"):
        stop.raise_if_asked()
