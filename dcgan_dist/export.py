"""Hands a trained generator on: `python -m dcgan_dist.export --checkpoint FILE_OR_RUN --out DIR`."""

from __future__ import annotations

import argparse
import signal
from pathlib import Path

from dcgan_dist.base.errors import exit_cleanly
from dcgan_dist.command_line.arguments import add_checkpoint

FORMATS = ("safetensors", "onnx", "torch")
DESCRIPTION = """Writes the generator of a checkpoint into files that others can use, and a model card beside them.

  safetensors   generator.safetensors: the weights, with the configuration in the metadata
  onnx          generator.onnx: for onnxruntime and everything else that reads ONNX, any number of latents at once
  torch         generator.pt2: for torch.export.load, without this package

Each file is loaded again and must draw what the checkpoint draws, or nothing is exported."""


def build_parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan_dist.export",
        description=DESCRIPTION,
        epilog="example:\n  python -m dcgan_dist.export --checkpoint runs/demo --out exported/demo",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add_checkpoint(parser)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="a new folder")
    parser.add_argument(
        "--format", nargs="+", choices=FORMATS, default=list(FORMATS), metavar="FORMAT", help="default: all three"
    )
    return parser


def main() -> int:
    """Runs the command; the exit status."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is half written is removed on the way out
    arguments = build_parser().parse_args()
    from dcgan_dist.exporting.run import run  # torch takes seconds to import; --help should not wait

    return run(arguments)


if __name__ == "__main__":
    exit_cleanly(main)
