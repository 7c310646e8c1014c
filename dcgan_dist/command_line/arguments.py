"""Options that several commands share. No torch here, so that `--help` answers at once."""

from __future__ import annotations

import argparse
import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from dcgan_dist.base.errors import speaks_for_node

LARGEST_SEED = 2**63 - 1


def add_checkpoint(parser: argparse.ArgumentParser) -> None:
    """Which network: `--checkpoint`, `--ema`, `--no-ema`; `arguments.ema` is None where neither is given."""
    parser.add_argument(
        "--checkpoint",
        type=Path,
        required=True,
        metavar="FILE_OR_RUN",
        help="a .pt file of a run's checkpoints/, or a run folder, of which the newest good checkpoint is taken",
    )
    parser.add_argument(
        "--ema",
        action=argparse.BooleanOptionalAction,
        default=None,
        help="the moving average of the generator, or the generator of the last step; default: the average if there is "
        "one",
    )


def add_seed(parser: argparse.ArgumentParser) -> None:
    """`--seed`, 0 if it is not given."""
    parser.add_argument(
        "--seed", type=whole_number(0, LARGEST_SEED), default=0, metavar="S", help="of the latents; default: 0"
    )


def add_class(parser: argparse.ArgumentParser, what: str) -> None:
    """`--class`, which is `arguments.shown`; None if it is not given."""
    parser.add_argument(
        "--class",
        dest="shown",
        metavar="CLASS",
        help=f"the name of a class, or attributes as Smiling=1,Male=0, {what}; for networks that were trained with "
        "model.classes",
    )


def whole_number(at_least: int, at_most: int | None = None) -> Callable[[str], int]:
    """The type of an option that takes a whole number of this range."""
    wanted = f"a whole number of at least {at_least}" + (f" and at most {at_most}" if at_most is not None else "")

    def parse(text: str) -> int:
        if text.isascii() and text.isdigit() and len(text) < 25:
            number = int(text)
            if number >= at_least and (at_most is None or number <= at_most):
                return number
        raise argparse.ArgumentTypeError(f"{wanted} is expected, not {text!r}")

    return parse


def parse_once(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """Parses the command line; on each node only the first rank prints `--help` or errors."""
    if speaks_for_node():
        return parser.parse_args()
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return parser.parse_args()
