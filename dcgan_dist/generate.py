"""Draws from a trained checkpoint: `python -m dcgan_dist.generate --checkpoint FILE_OR_RUN --out PATH`.

Images, walks between latents, arithmetic on latents, and the nearest training images to what is drawn. On one process,
or under torchrun on many: the same seed gives the same bytes.
"""

from __future__ import annotations

import argparse
import math
import signal
from pathlib import Path

from dcgan_dist.base.errors import UserError, end_with_launcher
from dcgan_dist.command_line.arguments import add_checkpoint, add_class, add_seed, parse_once, whole_number
from dcgan_dist.distributed.leaving import exit_as_rank

MOST_IMAGES_ON_A_GRID = 10_000
MOST_ROWS = 64
MOST_NEIGHBOURS_SOUGHT = 1000
EXAMPLES = """examples:
  python -m dcgan_dist.generate --checkpoint runs/demo --out samples.png
  torchrun --nproc_per_node 8 -m dcgan_dist.generate --checkpoint runs/celeba64 --num-images 50000 --out fid.npz
  python -m dcgan_dist.generate --checkpoint runs/demo --num-images 500 --out samples/
  python -m dcgan_dist.generate --checkpoint runs/demo --interpolate --out walk.gif
  python -m dcgan_dist.generate --checkpoint runs/demo --arithmetic Smiling --out smiling.png
  python -m dcgan_dist.generate --checkpoint runs/demo --arithmetic-indices "3,8,20 - 1,4,9 + 5,6,7" --out sum.png
  python -m dcgan_dist.generate --checkpoint runs/demo --neighbours --out neighbours.png
  python -m dcgan_dist.generate --checkpoint runs/classes --class Smiling=1,Male=0 --out smiling_women.png"""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan_dist.generate",
        description="Draws images from a trained checkpoint. The name of --out says what becomes of them.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_checkpoint(parser)
    parser.add_argument(
        "--out",
        type=Path,
        required=True,
        metavar="PATH",
        help="NAME.png: a grid; NAME.npz: uint8 [N, H, W, 3] under arr_0, as tools for FID read it; a name without a "
        "suffix: a folder of 000000.png, ...; with --interpolate NAME.png, NAME.gif or NAME.mp4",
    )
    parser.add_argument(
        "--num-images",
        type=whole_number(1, 10_000_000),
        metavar="N",
        help="images to draw (default: 64); walks with --interpolate (8 rows, or 16 tiles of an animation); rows of "
        "the figure with --arithmetic (3); images whose neighbours are sought with --neighbours (64)",
    )
    add_seed(parser)
    parser.add_argument(
        "--truncation",
        type=_positive_number,
        metavar="T",
        help="draw latents from a normal distribution cut off at -T and T: the smaller, the more alike and the more "
        "typical the images; default: not cut off",
    )
    add_class(parser, "which all images are to show (attributes that are not named: as training images do)")
    _add_kinds(parser)
    return parser


def _add_kinds(parser: argparse.ArgumentParser) -> None:
    kinds = parser.add_argument_group("instead of independent images").add_mutually_exclusive_group()
    kinds.add_argument("--interpolate", action="store_true", help="walks from latent to latent on great circles")
    kinds.add_argument(
        "--arithmetic",
        metavar="ATTRIBUTE",
        help="figure 7 of the paper: mean latent of images with the attribute, minus without, plus others without. A "
        "probe on the discriminator's features picks them, fitted on the annotations of --shards",
    )
    kinds.add_argument(
        "--arithmetic-indices",
        metavar="'A - B + C'",
        help="the same with images that you pick: numbers from 0 as in the folder of PNGs of this seed, between commas",
    )
    kinds.add_argument("--neighbours", action="store_true", help="the nearest training images: is it memorising?")
    parser.add_argument(
        "--steps",
        type=whole_number(2, 240),
        metavar="K",
        help="with --interpolate: images of a row (default: 10), or frames from latent to latent (default: 30)",
    )
    parser.add_argument(
        "--shards",
        metavar="DIR",
        help="with --arithmetic and --neighbours: the training images; default: where the run had them",
    )


def main() -> int:
    """Runs the command; the exit status."""
    end_with_launcher()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half written is removed on the way out
    arguments = parse_once(build_parser())
    check(arguments)
    from dcgan_dist.generating.run import run  # torch takes seconds to import; --help should not wait

    return run(arguments)


def check(arguments: argparse.Namespace) -> None:
    """Raises UserError where options do not fit each other; fills in the defaults that depend on others."""
    out, suffix = arguments.out, arguments.out.suffix
    figure = arguments.arithmetic or arguments.arithmetic_indices or arguments.neighbours
    suffixes = (".png",) if figure else (".png", ".gif", ".mp4") if arguments.interpolate else (".png", ".npz", "")
    if suffix not in suffixes or out.name in ("", ".."):
        hint = "; for an animation add --interpolate" if suffix in (".gif", ".mp4") and not figure else ""
        names = " or ".join(f"NAME{ending}" if ending else "a folder's name without a dot" for ending in suffixes)
        raise UserError(f"--out {out}: should be {names} here{hint}")
    if arguments.steps and not arguments.interpolate:
        raise UserError(f"--steps {arguments.steps}: is for --interpolate")
    if arguments.shards and not (arguments.arithmetic or arguments.neighbours):
        raise UserError(f"--shards {arguments.shards}: is for --arithmetic and --neighbours")
    if arguments.num_images and arguments.arithmetic_indices:
        raise UserError(f"--num-images {arguments.num_images}: --arithmetic-indices makes one row; leave it out")
    default, most = _number_of_images(arguments)
    arguments.num_images = arguments.num_images or default
    if most and arguments.num_images > most:
        advice = "; use NAME.npz or a folder" if not figure and not arguments.interpolate else ""
        raise UserError(f"--num-images {arguments.num_images}: at most {most} here{advice}")
    arguments.steps = arguments.steps or (10 if suffix == ".png" else 30)


def _number_of_images(arguments: argparse.Namespace) -> tuple[int, int | None]:
    """The default and the largest --num-images."""
    if arguments.interpolate:
        return (8 if arguments.out.suffix == ".png" else 16), MOST_ROWS
    if arguments.arithmetic:
        return 3, MOST_ROWS
    if arguments.neighbours:
        return 64, MOST_NEIGHBOURS_SOUGHT
    return 64, MOST_IMAGES_ON_A_GRID if arguments.out.suffix == ".png" else None


def _positive_number(text: str) -> float:
    """The type of --truncation."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"a number above 0 is expected, not {text!r}")
    return number


if __name__ == "__main__":
    exit_as_rank(main)
