"""One line about a wait that takes long, and none about a short one."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest

from dcgan_dist.base.waiting import told_if_long


def test_a_long_wait_is_told_of_once_with_its_times_and_what_to_do(capsys: pytest.CaptureFixture[str]) -> None:
    with told_if_long("the tide", 3600, "bring a book", patience=0.01):
        time.sleep(0.1)
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("waiting for the tide since ")
    assert ", until " in line
    assert line.endswith("; bring a book")


def test_a_short_wait_is_not_told_of(capsys: pytest.CaptureFixture[str]) -> None:
    with told_if_long("the tide", patience=0.1):
        pass
    time.sleep(0.2)
    assert capsys.readouterr().err == ""


def test_what_is_waited_for_is_asked_when_it_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    missing = ["rank 1", "rank 2"]
    with told_if_long(lambda: ", ".join(missing), patience=0.05):
        missing.pop()
        time.sleep(0.15)
    assert capsys.readouterr().err.startswith("waiting for rank 1 since ")


@pytest.mark.parametrize("what", [lambda: "", lambda: 1 // 0])
def test_a_wait_about_which_nothing_can_be_said_goes_on_in_silence(
    what: Callable[[], str], capsys: pytest.CaptureFixture[str]
) -> None:
    with told_if_long(what, patience=0.01):
        time.sleep(0.05)
    assert capsys.readouterr().err == ""
