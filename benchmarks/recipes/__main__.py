"""Trains several recipes on equal numbers of images with several seeds, scores them, and shows what came out.

    python -m benchmarks.recipes --out runs/study                         all recipes of benchmarks/recipes.yaml
    python -m benchmarks.recipes --out runs/study --recipe paper --recipe hinge
    python -m benchmarks.recipes --out runs/study --recipe paper --recipe quick optim.generator_lr=4e-4
    python -m benchmarks.recipes --out runs/study --show                  only what is there so far

Each recipe with each seed is an ordinary run in OUT/RECIPE/seed-S. The same command again goes on where it was: runs
that are finished are passed over, stopped ones go on. Prints a table; writes study.json and study.html into OUT.
Exit status: 0; 1 if a run failed, which stops no other; 2 for wrong usage.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from dcgan_dist.base.errors import UserError, exit_cleanly
from dcgan_dist.base.files import write_text
from dcgan_dist.command_line.arguments import LARGEST_SEED, whole_number
from dcgan_dist.config import IMAGE_SIZES

if TYPE_CHECKING:
    from benchmarks.recipes.study import Study, Trial
    from dcgan_dist.metrics.evaluation import Metric

RECIPES = Path(__file__).resolve().parents[1] / "recipes.yaml"
METRICS: tuple[Metric, ...] = ("swd", "ms_ssim")
METRICS_WITH_FID: tuple[Metric, ...] = (*METRICS, "fid")
MOST_SCORE_IMAGES = 8192  # unless --score-images asks for more


def main() -> int:
    """Trains, scores, shows; the exit status."""
    given = build_parser().parse_args()
    from benchmarks.recipes.recipe import assert_usable, chosen, read_recipes, settings_of

    for_all, known = read_recipes(given.file)
    recipes = chosen(given.recipe, known)
    for_all |= settings_of(given.all, "--all")
    for recipe in recipes:
        assert_usable(recipe, for_all)
    shards = given.shards or _drawn_faces(given.out, given.faces, given.show)
    from benchmarks.recipes.study import Study

    samples = _samples(shards)
    metrics, weights = _metrics(given)
    study = Study(
        out=given.out.resolve(),
        shards=shards.resolve(),
        image_size=given.size,
        images=given.images,
        points=given.points,
        seeds=tuple(dict.fromkeys(given.seeds)),
        metrics=metrics,
        score_images=_score_images(given.score_images, samples, shards),
        weights=weights,
        for_all=for_all,
        ranks=given.ranks,
    )
    trials = study.trials(recipes)
    for trial in trials:
        trial.check()
    problems = [] if given.show else _carry_out(study, trials, given.at_once)
    _show(study, trials)
    for problem in problems:
        print(f"failed: {problem}", file=sys.stderr)
    return 1 if problems else 0


def build_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.recipes",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    count = whole_number(1)
    add = parser.add_argument
    add("--out", type=Path, default=Path("runs/study"), metavar="DIR", help="default: %(default)s")
    add(
        *("--recipe", "-r"),
        nargs="+",
        action="append",
        default=[],
        metavar=("NAME", "KEY=VALUE"),
        help="a recipe of the file by its name, or a new one with its settings; default: all of the file",
    )
    add("--file", type=Path, default=RECIPES, metavar="FILE.yaml", help="recipes; default: benchmarks/recipes.yaml")
    add("--all", nargs="+", default=[], metavar="KEY=VALUE", help="settings of all recipes, such as optim.beta2=0.99")
    add("--images", type=count, default=200_000, metavar="N", help="to train each on (default: %(default)s)")
    add("--size", type=int, choices=IMAGE_SIZES, default=64, help="pixels (default: %(default)s)")
    seed = whole_number(0, LARGEST_SEED)
    add("--seeds", type=seed, nargs="+", default=[0, 1, 2], metavar="S", help="default: 0 1 2")
    add("--shards", type=Path, metavar="DIR", help="the images; default: drawn faces, made once in OUT")
    add("--faces", type=count, default=8192, metavar="N", help="drawn faces, without --shards (default: %(default)s)")
    add("--points", type=count, default=10, metavar="N", help="scores during each run (default: %(default)s)")
    add(
        "--score-images",
        type=whole_number(2),
        metavar="N",
        help=f"on either side of the scores; default: {MOST_SCORE_IMAGES}, or half of the images if that is less",
    )
    many = parser.add_mutually_exclusive_group()
    many.add_argument("--ranks", type=count, default=1, metavar="N", help="of each run, by torchrun (default: 1)")
    many.add_argument("--at-once", type=count, default=1, metavar="N", help="runs at the same time (default: 1)")
    add("--inception-weights", type=Path, metavar="FILE", help="for fid, which is left out where there are none")
    add("--accept-weights", action="store_true", help="even if their checksum is another")
    add("--show", action="store_true", help="train nothing; show what is there")
    return parser


def _drawn_faces(out: Path, count: int, show_only: bool) -> Path:
    """Shards of drawn faces in `out`, made once; whole or not at all."""
    folder = out / f"drawn-{count}"
    if not folder.exists():
        if show_only:
            raise UserError(f"--out {out}: holds no study of {count} drawn faces to show; name its --shards or --faces")
        from benchmarks.__main__ import make_images

        print(f"drawing {count:,} faces ...", file=sys.stderr, flush=True)
        try:
            out.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=out, prefix=".drawing-") as place:
                make_images(Path(place), count)
                (Path(place) / "shards").rename(folder)
        except OSError as error:
            raise UserError(f"--out {out}: cannot be written ({error.strerror}); choose another folder") from None
    return folder


def _samples(shards: Path) -> int:
    from dcgan_dist.data.shard_format import read_manifest

    return read_manifest(shards).samples


def _score_images(asked: int | None, samples: int, shards: Path) -> int:
    if (asked or 0) > samples or samples < 2:
        raise UserError(f"--score-images {asked}: {shards} has {samples} images to compare with; ask for no more")
    return asked or min(MOST_SCORE_IMAGES, max(2, samples // 2))


def _metrics(given: argparse.Namespace) -> tuple[tuple[Metric, ...], list[str]]:
    """The metrics of the scores, with fid where the Inception weights are, and `evaluate`'s options for them."""
    from dcgan_dist.metrics.evaluation import assert_installed
    from dcgan_dist.metrics.inception import find_weights

    weights = find_weights(given.inception_weights, given.accept_weights)
    metrics = METRICS_WITH_FID if weights else METRICS
    assert_installed(metrics)
    named = ["--inception-weights", str(weights.resolve())] if weights else []
    return metrics, named + ["--accept-weights"] * bool(weights and given.accept_weights)


def _carry_out(study: Study, trials: list[Trial], at_once: int) -> list[str]:
    import torch

    from benchmarks.recipes.running import carry_out
    from dcgan_dist.base.files import lock_if_free

    try:
        study.out.mkdir(parents=True, exist_ok=True)
        lock = (study.out / ".lock").open("ab")
    except OSError as error:
        raise UserError(f"--out {study.out}: cannot be written ({error.strerror}); choose another folder") from None
    with lock:
        taken = False
        with contextlib.suppress(OSError):  # a network file system without locks
            taken = not lock_if_free(lock)
        if taken:
            raise UserError(f"--out {study.out}: another study is running there; wait for it, or choose another folder")
        return carry_out(study, trials, at_once, torch.cuda.device_count())


def _show(study: Study, trials: list[Trial]) -> None:
    from rich.console import Console

    from benchmarks.recipes.outcome import as_json, outcomes
    from benchmarks.recipes.page import render
    from benchmarks.recipes.table import print_table

    found = outcomes(study, trials)
    console = Console(width=None if sys.stdout.isatty() else 160)
    print_table(study, found, console)
    result, page = study.out / "study.json", study.out / "study.html"
    write_text(result, json.dumps(as_json(study, found), indent=1) + "\n")
    write_text(page, render(study, found))
    print(f"written: {result} and {page}")


if __name__ == "__main__":
    exit_cleanly(main)
