"""What `python -m dcgan_dist.evaluate` does: checkpoint and shards in, a table and lines of scores.jsonl out."""

from __future__ import annotations

import dataclasses
import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.table import Table

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.base.waiting import progress_stages
from dcgan_dist.config import DataConfig
from dcgan_dist.data.classes import Classes, classes_of_shards
from dcgan_dist.data.loader import Shards, open_decoder, open_shards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.leaving import is_lost_connection, leave_after_the_culprit
from dcgan_dist.distributed.workforce import Workforce, keep_freed_memory, take_share_of_cores
from dcgan_dist.distributed.world import World
from dcgan_dist.metrics.evaluation import METRICS, WITH_WEIGHTS, Evaluator, Metric, Score, assert_installed
from dcgan_dist.metrics.inception import download_weights, find_weights, missing_weights
from dcgan_dist.metrics.scores import ScoreRow, append_scores, newest_comparable, read_scores
from dcgan_dist.run.trained import Trained, load_on_every_rank
from dcgan_dist.tracking.tracker import set_up_logging

DEFAULT_NUM_IMAGES = 8192


@dataclass(frozen=True)
class Request:
    """What is asked for on the command line; None stands for the default."""

    checkpoint: Path
    ema: bool | None
    shards: Path | str | None
    num_images: int | None
    seed: int
    metrics: tuple[Metric, ...] | None
    weights: Path | None
    accept_weights: bool
    decoder: Literal["auto", "dali", "pillow"] | None
    out: Path | None
    compare: tuple[Path, ...]
    as_json: bool
    shown: str | None = None
    """The class that is scored, as `--class` names it."""


def evaluate(request: Request) -> int:
    """Scores a checkpoint on all ranks and writes down what came out; the exit status.

    Raises UserError, the same on every rank, and RunFailed on rank 0 if the scores cannot be written down.
    """
    world = World.connect()
    set_up_logging(world.rank)
    keep_freed_memory()
    try:
        _evaluate(request, world)
    except (UserError, RunFailed):
        world.close()
        raise
    except Exception as error:
        if not is_lost_connection(error):
            raise
        leave_after_the_culprit(world, error)
    world.close()
    return 0


def _evaluate(request: Request, world: World) -> None:
    cores = take_share_of_cores(world)
    workforce = Workforce.of(world, cores)
    weights = _weights(request, world)
    trained = load_on_every_rank(request.checkpoint, world, request.ema)
    shards = world.together(_shards, request, trained, world)
    classes = _classes(request, trained, shards, world)
    evaluator = world.together(_evaluator, request, trained, shards, classes, weights, workforce, cores)
    others = world.together(_comparable, request, evaluator)
    out = request.out or _scores_of(trained.path)
    world.on_main(_assert_writable, out)
    with progress_stages(visible=world.is_main) as evaluator.stage:
        scores = evaluator.score(trained.draw, with_floor=True)
    if not world.is_main:
        return
    earlier = read_scores(out)
    network = "ema" if trained.averaged else "generator"
    rows = [score.row(trained.images_seen, network) for score in scores]
    try:
        rows = append_scores(out, rows, trained.path.name, during_training=False)
    except OSError as error:
        raise RunFailed(f"{out}: takes no more lines ({error.strerror}); the scores are shown, not kept") from None
    finally:
        _show(request, trained, scores, rows, others)
    _mention_unlike(earlier, rows)
    print(f"appended to {out}", file=sys.stderr)


def _data(request: Request, trained: Trained) -> DataConfig:
    """The training's, with what is asked for otherwise."""
    data = trained.config.data
    shards, decoder = str(request.shards or data.shards), request.decoder or data.decoder
    return dataclasses.replace(data, shards=shards, decoder=decoder)


def _shards(request: Request, trained: Trained, world: World) -> Shards:
    data = _data(request, trained)
    manifest = read_manifest(data.shards)
    if world.is_main and manifest.fingerprint != trained.saved.dataset_fingerprint:
        print(f"note: the images in {data.shards} are not those of the training", file=sys.stderr)
    return open_shards(data, manifest, world)


def _classes(request: Request, trained: Trained, shards: Shards, world: World) -> Classes | None:
    """What the real images show of the classes that the networks are told of; UserError if these are others."""
    if request.shown is not None:
        trained.wanted(request.shown)
    if trained.classes is None:
        return None
    if classes := classes_of_shards(shards, trained.config.model.classes, world):
        classes.assert_named(list(trained.classes.names), "give --shards with the same")
    return classes


def _evaluator(
    request: Request,
    trained: Trained,
    shards: Shards,
    classes: Classes | None,
    weights: Path | None,
    workforce: Workforce,
    cores: int,
) -> Evaluator:
    data, samples = _data(request, trained), len(shards)
    metrics = _metrics(request.metrics, weights)
    assert_installed(metrics)
    shards.verify(workforce.world.local_rank, workforce.world.local_size)  # what is computed of them is kept
    if classes and request.shown is not None:
        samples = len(classes.showing(classes.wanted(request.shown)))
    return Evaluator(
        data=data,
        manifest=shards.manifest,
        source=open_decoder(data, shards, workforce.world, cores),
        latent_size=trained.config.model.latent_size,
        metrics=metrics,
        num_images=_num_images(request.num_images, samples, data.shards),
        seed=request.seed,
        weights=weights,
        workforce=workforce,
        classes=classes,
        shown=request.shown,
    )


def _comparable(request: Request, evaluator: Evaluator) -> list[list[ScoreRow]]:
    """Returns, for each metric, the scores of the runs to compare with under its protocol."""
    protocols = [evaluator.protocol(metric) for metric in evaluator.metrics]
    return [[newest_comparable(run, protocol) for run in request.compare] for protocol in protocols]


def _weights(request: Request, world: World) -> Path | None:
    """Returns the given or cached weights, on every rank or on none.

    They are downloaded, once a node, only for a metric that is asked for by name.
    """
    wanted = bool(set(request.metrics or ()) & set(WITH_WEIGHTS))
    if request.metrics and not wanted:
        return None
    weights = world.together(find_weights, request.weights, request.accept_weights)
    if not world.any(weights is None):
        return weights
    if not wanted:
        return None
    if weights is None and world.local_rank == 0:
        print("downloading the Inception weights, 92 MB", file=sys.stderr)
        download_weights()
    world.gather_objects(None)  # the others wait for it
    return weights or find_weights(None)


def _metrics(asked: tuple[Metric, ...] | None, weights: Path | None) -> tuple[Metric, ...]:
    """Returns the metrics asked for, or all that are available."""
    if asked is None:
        return METRICS if weights else tuple(name for name in METRICS if name not in WITH_WEIGHTS)
    lacking = [name for name in asked if name in WITH_WEIGHTS and weights is None]
    if lacking:
        raise missing_weights(lacking[0])
    return asked


def _num_images(asked: int | None, samples: int, shards: str) -> int:
    if asked is not None and asked > samples:
        raise UserError(f"--num-images {asked}: {shards} has {samples} real images to compare with; ask for no more")
    if samples < 2:
        raise UserError(f"{shards}: has {samples} image, and a score needs at least two")
    return asked or min(DEFAULT_NUM_IMAGES, max(2, samples // 2))


def _scores_of(checkpoint: Path) -> Path:
    """scores.jsonl of the run a checkpoint lies in, or beside a checkpoint that lies elsewhere."""
    folder = checkpoint.parent
    return (folder.parent if folder.name == "checkpoints" else folder) / "scores.jsonl"


def _assert_writable(out: Path) -> None:
    """Raises UserError if the scores cannot be written, before an hour is spent on computing them."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with out.open("ab"):
            pass
    except OSError as error:
        raise UserError(f"{out}: cannot be written ({error.strerror}); choose another --out") from None


# --- what the user sees -----------------------------------------------------------------------------------------------


def _show(
    request: Request, trained: Trained, scores: list[Score], rows: list[ScoreRow], others: list[list[ScoreRow]]
) -> None:
    if request.as_json:
        print(json.dumps(rows, indent=1))
        return
    network = "average of the generator" if trained.averaged else "generator"
    number = scores[0].protocol.num_images
    print(f"{trained.path}: {network}, {number} images against {number} real ones")
    table = Table()
    table.add_column("metric")
    table.add_column("score", justify="right")
    table.add_column("real against real", justify="right")
    for run in request.compare:
        table.add_column(str(run), justify="right")
    table.add_column("made of")
    for score, beside in zip(scores, others, strict=True):
        parts = "  ".join(f"{name} {value:.4g}" for name, value in score.parts.items())
        compared = [f"{row['value']:.4g}" for row in beside]
        table.add_row(score.protocol.metric, f"{score.value:.4g}", _floor_text(score), *compared, parts)
    Console(width=None if sys.stdout.isatty() else 120).print(table)


def _floor_text(score: Score) -> str:
    if score.floor is None:
        return ""
    fewer = score.floor_images != score.protocol.num_images
    return f"{score.floor:.4g}" + (f" (of {score.floor_images} images)" if fewer else "")


def _mention_unlike(earlier: list[ScoreRow], rows: list[ScoreRow]) -> None:
    """Compares the scores with earlier ones in the file, and says which are left out because their protocol differs."""
    for row in rows:
        same = [old for old in earlier if old["metric"] == row["metric"]]
        alike = [old["value"] for old in same if old["protocol_key"] == row["protocol_key"]]
        text = f"lowest of {len(alike)} before under this protocol: {min(alike):.4g}" if alike else ""
        if unlike := len(same) - len(alike):
            text += ("; " if text else "") + f"{unlike} of another protocol not compared"
        if text:
            print(f"{row['metric']}: {text}", file=sys.stderr)
