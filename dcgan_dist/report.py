"""A run on one page: `python -m dcgan_dist.report RUN_DIR [RUN_DIR ...] [--out FILE.html]`."""

from __future__ import annotations

import argparse
from pathlib import Path

from dcgan_dist.base.errors import UserError, exit_cleanly

DESCRIPTION = """Shows a run, or several side by side, on one page that needs no network and nothing beside it.

python -m dcgan_dist.report runs/demo                        writes report.html, report.png and curves.png into it
python -m dcgan_dist.report runs/a runs/b --out both.html    compares two runs; writes both.html and both.png

A run that is still going on, or that failed, is shown as far as it came."""


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        prog="python -m dcgan_dist.report",
        description=DESCRIPTION,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN_DIR", help="folder of a run, such as runs/demo")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="FILE.html",
        help="where the page goes, and a picture beside it; default: report.html in the run's folder, "
        "or comparison.html beside the first of several",
    )
    return parser.parse_args(arguments)


def main() -> int:
    """Writes the page and the picture; the exit status."""
    given = parse_arguments()
    out = given.out or default_out(given.runs)
    if out.suffix.lower() not in (".html", ".htm"):
        raise UserError(f"--out {out}: must end in .html")
    from dcgan_dist.reporting.curves import draw_curves
    from dcgan_dist.reporting.read_run import read_run
    from dcgan_dist.reporting.write import write_report

    runs = [read_run(path) for path in given.runs]
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        written = write_report(runs, out)
        if not given.out and len(runs) == 1:
            draw_curves(runs[0], runs[0].folder.curves)
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another place with --out") from None
    for path in written:
        print(f"{path}  {path.stat().st_size / 1e6:.1f} MB")
    return 0


def default_out(runs: list[Path]) -> Path:
    """In the folder of one run, beside the first of several."""
    return runs[0] / "report.html" if len(runs) == 1 else runs[0].resolve().parent / "comparison.html"


if __name__ == "__main__":
    exit_cleanly(main)
