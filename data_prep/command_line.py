"""What the options of the commands have in common."""

from __future__ import annotations

import argparse
import os
import re


def positive(text: str) -> int:
    """An option's value that counts something."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"a whole number of at least 1 is expected, not {text!r}")
    return int(text)


def seed(text: str) -> int:
    """The value of --seed."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"a whole number of at least 0 is expected, not {text!r}")
    return int(text)


def fraction(text: str) -> float:
    """An option's value from 0 to below 1."""
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"a number from 0 to below 1 is expected, not {text!r}")
    return share


def colour(text: str) -> tuple[int, int, int]:
    """A colour as in HTML, as red, green and blue from 0 to 255."""
    if not re.fullmatch(r"#?[0-9a-fA-F]{6}", text):
        raise argparse.ArgumentTypeError(f"a colour such as ffffff or 808080 is expected, not {text!r}")
    red, green, blue = bytes.fromhex(text.removeprefix("#"))
    return red, green, blue


def least_size(text: str) -> int:
    """The value of --filter, in pixels."""
    name, _, value = text.partition("=")
    if name != "min_size" or not value.isdecimal():
        raise argparse.ArgumentTypeError(f"min_size=PIXELS is expected, as in min_size=64, not {text!r}")
    return int(value)


def usable_cores() -> int:
    """Cores that this process may use, which on a cluster are fewer than the machine has."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
