"""Scores a generator against real images: `python -m dcgan_dist.evaluate`, or torchrun with the same for many ranks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from dcgan_dist.base.errors import end_with_launcher
from dcgan_dist.command_line.arguments import add_checkpoint, add_class, add_seed, parse_once, whole_number
from dcgan_dist.distributed.leaving import exit_as_rank

if TYPE_CHECKING:
    from dcgan_dist.metrics.evaluate_checkpoint import Request

METRICS = ("swd", "ms_ssim", "fid", "kid")

DESCRIPTION = """Scores what a checkpoint's generator draws against the images it learned from.

  swd      sliced Wasserstein distance of patches, level by level; needs no weights; lower is better
  ms_ssim  how alike two drawings are on average; far above the data's own value: the same few images again and again
  fid      Frechet Inception distance; needs the Inception weights; lower is better
  kid      kernel Inception distance; needs the Inception weights; lower is better

python -m dcgan_dist.evaluate --checkpoint runs/demo
torchrun --nproc_per_node 8 -m dcgan_dist.evaluate --checkpoint runs/celeba64 --num-images 50000 --metrics fid kid
python -m dcgan_dist.evaluate --checkpoint runs/celeba64 --compare runs/other

Each score is appended with its protocol to RUN/scores.jsonl. Scores of unlike protocols are never compared. Beside a
score stands its floor: real images against other real images, which no generator can beat."""


def main() -> int:
    """Evaluates or compares as the command line says; the exit status."""
    end_with_launcher()
    arguments = parse_once(build_parser())
    # torch takes seconds to import; --help and a typing error should not wait
    from dcgan_dist.metrics.evaluate_checkpoint import Request, evaluate

    return evaluate(_request(arguments, Request))


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan_dist.evaluate",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_checkpoint(parser)
    parser.add_argument("--shards", metavar="DIR", help="the real images; default: those of the training")
    parser.add_argument(
        "--num-images",
        type=whole_number(2),
        metavar="N",
        help="images on either side; default: 8192, or half of the real ones if that is less",
    )
    add_seed(parser)
    add_class(parser, "which is scored by itself: generated images that are to show it against real ones that do")
    parser.add_argument(
        "--metrics",
        nargs="+",
        choices=METRICS,
        metavar="METRIC",
        help="of swd, ms_ssim, fid, kid; default: all, fid and kid only if the Inception weights are there",
    )
    parser.add_argument("--inception-weights", type=Path, metavar="FILE", help="default: torch-fidelity's download")
    parser.add_argument(
        "--accept-weights",
        action="store_true",
        help="take Inception weights whose checksum is not that of torch-fidelity's; "
        "their scores compare only with scores of the same file",
    )
    parser.add_argument("--decoder", choices=("auto", "dali", "pillow"), help="default: that of the training")
    parser.add_argument("--out", type=Path, metavar="FILE", help="takes the scores; default: RUN/scores.jsonl")
    parser.add_argument(
        "--compare", type=Path, nargs="+", metavar="RUN", default=[], help="show other runs' newest scores beside it"
    )
    parser.add_argument("--json", action="store_true", help="print the scores as JSON in place of a table")
    return parser


def _request(arguments: argparse.Namespace, kind: type[Request]) -> Request:
    return kind(
        checkpoint=arguments.checkpoint,
        ema=arguments.ema,
        shards=arguments.shards,
        num_images=arguments.num_images,
        seed=arguments.seed,
        shown=arguments.shown,
        metrics=tuple(dict.fromkeys(arguments.metrics)) if arguments.metrics else None,
        weights=arguments.inception_weights,
        accept_weights=arguments.accept_weights,
        decoder=arguments.decoder,
        out=arguments.out,
        compare=tuple(arguments.compare),
        as_json=arguments.json,
    )


if __name__ == "__main__":
    exit_as_rank(main)
