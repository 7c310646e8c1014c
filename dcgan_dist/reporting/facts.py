"""A run in a few words and numbers: how far it is, how fast it was, what was set and how it scored."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from dcgan_dist.reporting.plot import short
from dcgan_dist.reporting.read_run import Row, RunRecord, default_settings, is_number, protocol_note

NAMES_OF_A_RUN = ("run.name", "run.dir", "run.resume", "run.accept_changes")
"""Settings that say which run it is, not what it does."""


@dataclass(frozen=True)
class Fact:
    """One thing worth knowing at a glance."""

    name: str
    value: str
    note: str = ""


def facts_of(run: RunRecord, others: Sequence[RunRecord] = ()) -> list[Fact]:
    """What a reader asks first, beside `others`; facts that the run does not tell are left out."""
    facts = [_progress(run)]
    last = run.rows[-1] if run.rows else {}
    if is_number(last.get("epoch")):
        facts.append(Fact("Epochs", f"{last['epoch']:.1f}"))
    if seconds := training_seconds(run.rows):
        facts.append(Fact("Training time", duration(seconds), "in steps"))
    if wall := _wall_time(run.status.get("seconds")):
        facts.append(wall)
    if speeds := values_of(run.rows, "speed/images_per_second"):
        facts.append(Fact("Throughput", f"{short(statistics.median(speeds))} images/s", "median"))
    if waits := values_of(run.rows, "speed/data_wait_fraction"):
        facts.append(Fact("Waiting for data", f"{100 * statistics.median(waits):.2g} %", "median"))
    if peaks := values_of(run.rows, "memory/peak_gib"):
        facts.append(Fact("Peak memory", f"{max(peaks):.1f} GiB", "rank 0"))
    if is_number(last.get("score/real")) and is_number(last.get("score/fake")):
        facts.append(Fact("D(x) / D(G(z))", f"{last['score/real']:.2f} / {last['score/fake']:.2f}", "last row"))
    return facts + best_scores(run, others)


def subtitle(run: RunRecord) -> str:
    """What was trained, on what: `32x32 px, batch 64, 2 ranks of cpu, fp32`; only what the run tells."""
    size, told = run.settings.get("data.image_size"), run.environment
    parts = [
        f"{size}\u00d7{size} px" if size else "",
        f"batch {told['global_batch']}" if "global_batch" in told else "",
        f"{told['ranks']} rank{'s' * (told['ranks'] != 1)} of {told.get('device', 'a device')}"
        if "ranks" in told
        else "",
        str(told.get("precision", "")),
        f"{_cell(told.get('dataset_images'))} images of {told['dataset']}" if "dataset" in told else "",
    ]
    return " \u00b7 ".join(part for part in parts if part)


def _progress(run: RunRecord) -> Fact:
    known = (run.environment.get("total_images"), run.settings.get("train.total_images"))
    total = next((f"of {value:,}" for value in known if isinstance(value, int)), "")
    return Fact("Images seen", f"{run.images_seen:,}", total)


def _wall_time(seconds: Any) -> Fact | None:
    """How long the newest start took from its command on, and the stages that took a tenth of a second or more."""
    if not isinstance(seconds, dict) or not seconds or not all(map(is_number, seconds.values())):
        return None
    stages = ", ".join(f"{stage} {took:.1f}" for stage, took in seconds.items() if took >= 0.05)
    return Fact("Wall time", duration(sum(seconds.values())), f"newest start: {stages}")


def best_scores(run: RunRecord, others: Sequence[RunRecord]) -> list[Fact]:
    """The lowest score of each metric and protocol taken during training."""
    known = {key for record in (run, *others) for key in record.training_scores}
    facts = []
    for (metric, protocol), rows in run.training_scores.items():
        best = min(rows, key=lambda row: row["value"])
        when = f"at {short(best['images_seen'])} images{protocol_note(metric, protocol, known)}"
        facts.append(Fact(f"Best {metric.replace('_', ' ').upper()}", short(best["value"]), when))
    return facts


def training_seconds(rows: Sequence[Row]) -> float:
    """Seconds spent in steps, from the speed of each row."""
    seconds, before = 0.0, 0
    for row in rows:
        speed = row.get("speed/images_per_second")
        if is_number(speed) and speed > 0:
            seconds += (row["images_seen"] - before) / speed
        before = row["images_seen"]
    return seconds


def duration(seconds: float) -> str:
    """Seconds as people say them: 48 s, 5 min, 3 h 20 min."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def values_of(rows: Sequence[Row], name: str) -> list[float]:
    """A figure of all rows that have it."""
    return [row[name] for row in rows if is_number(row.get(name))]


def changed_settings(run: RunRecord) -> list[tuple[str, str, str]]:
    """(name, value, default) of each setting that is not its default, and of those that are no settings any more."""
    defaults = default_settings()
    return [
        (name, written(value), written(defaults[name]) if name in defaults else "")
        for name, value in run.settings.items()
        if name not in defaults or value != defaults[name]
    ]


def differing_settings(runs: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """(name, each run's value) of the settings in which the runs differ."""
    names = dict.fromkeys(name for run in runs for name in run.settings if name not in NAMES_OF_A_RUN)
    rows = [(name, [written(run.settings.get(name, "not recorded")) for run in runs]) for name in names]
    return [(name, values) for name, values in rows if len(set(values)) > 1]


def written(value: Any) -> str:
    """A setting's value as YAML has it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else str(value)


def score_table(run: RunRecord) -> list[dict[str, str]]:
    """The scores of scores.jsonl that were asked for one by one; those taken during training are a curve.

    Rows with the same key were taken under the same protocol and may be compared.
    """
    return [
        {
            "images seen": _cell(row["images_seen"]),
            "metric": str(row.get("metric", "")).replace("_", "-").upper(),
            "score": _cell(row.get("value")),
            "real against real": _cell(row.get("floor")),
            "weights": {"ema": "averaged", "generator": "last"}.get(str(row.get("network")), ""),
            "images": _cell(_protocol(row).get("num_images")),
            "seed": _cell(_protocol(row).get("seed")),
            "protocol": str(row.get("protocol_key", ""))[:8],
        }
        for row in run.scores
        if not row.get("during_training")
    ]


def _protocol(row: Row) -> dict[str, Any]:
    return row["protocol"] if isinstance(row.get("protocol"), dict) else {}


def _cell(value: Any) -> str:
    if not is_number(value):
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
