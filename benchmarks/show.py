"""The figures of a benchmark as tables and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

LABELS = {"tutorial": "the tutorial", "examples": "pytorch/examples", "ours": "dcgan_dist"}
TIMES_STEP, TIMES_END_TO_END = "step times the tutorial's", "end to end times the tutorial's"
COLOURS = {"tutorial": "#9aa5b1", "examples": "#5b8db8", "ours": "#d1495b"}


def tables(result: dict[str, Any], console: Any) -> None:
    """Prints everything."""
    for batch, contenders in result["batches"].items():
        console.print(_comparison(batch, contenders, result["our precision"]))
        console.print(_shares(batch, contenders))
        console.print(_anatomy(batch, contenders, result))
    if "scaling" in result:
        console.print(_scaling(result["scaling"]))
    console.print(f"{result['device']}, torch {result['versions']['torch']}, {result['date']}")


def _table(title: str, *columns: str) -> Any:
    from rich.table import Table

    table = Table(title=title)
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def _comparison(batch: int, contenders: dict[str, Any], precision: str) -> Any:
    table = _table(
        f"batch {batch}, 64x64, ours in {precision}",
        *("", "ms a step", "images/s", "x tutorial", "from files", "x tutorial"),
    )
    for name, row in contenders.items():
        low, high = row["step lowest and highest"]
        table.add_row(
            LABELS[name],
            f"{row['step milliseconds']:.1f}",
            f"{row['step images per second']:,.0f}",
            f"{row[TIMES_STEP]:.2f} ({low:.2f}-{high:.2f})",
            f"{row['end to end images per second']:,.0f}",
            f"{row[TIMES_END_TO_END]:.2f}",
        )
    return table


def _shares(batch: int, contenders: dict[str, Any]) -> Any:
    """From files: what comes before the first step, and then, in parts that add up, where the time goes."""
    rows = contenders.values()
    table = _table(f"from files in steps of {batch}", "", *(LABELS[name] for name in contenders))
    table.add_row("cache fill", *(f"{row['cache fill seconds']:.1f} s" for row in rows))
    table.add_row("then images/s", *(f"{row['epoch images per second']:,.0f}" for row in rows))
    for stage in ("data wait", "forward and rest", "backward", "average gradients", "optimizer"):
        table.add_row(stage, *(f"{row['shares of an epoch'][stage]:.1%}" for row in rows))
    return table


def _anatomy(batch: int, contenders: dict[str, Any], result: dict[str, Any]) -> Any:
    table = _table(
        f"what a step of {batch} consists of",
        *("", "GFLOP", "GB moved", "of the FLOP/s", "of the bytes/s", "peak GiB"),
    )
    for name, row in contenders.items():
        anatomy, seconds = row["anatomy"], row["step milliseconds"] / 1e3
        rates = result["device rates"][result["our precision"] if name == "ours" else "fp32"]
        table.add_row(
            LABELS[name],
            f"{anatomy['flops'] / 1e9:.1f}",
            f"{anatomy['bytes'] / 1e9:.2f}",
            f"{anatomy['flops'] / seconds / rates['flops per second']:.0%}",
            f"{anatomy['bytes'] / seconds / rates['bytes per second']:.0%}",
            f"{anatomy['peak memory GiB']:.2f}",
        )
    return table


def _scaling(scaling: dict[str, Any]) -> Any:
    batch = scaling["images a rank"]
    table = _table(f"ranks, {batch} images each (weak) or in all (strong)", "ranks", "weak", "strong", "images/s from")
    for ranks, row in scaling["measured"].items():
        weak = batch * int(ranks) / row["weak"]
        strong = (
            f"{batch / row['strong']:,.0f}" if "strong" in row else ""
        )  # not where there are more ranks than images
        table.add_row(str(ranks), f"{weak:,.0f}", strong, "measured")
    for ranks, weak in scaling.get("predicted images per second, weak", {}).items():
        strong = scaling["predicted images per second, strong"].get(ranks)
        table.add_row(str(ranks), f"{weak:,.0f}", f"{strong:,.0f}" if strong else "", "the model")
    for ranks, images in scaling.get("images a rank for 90 % of its speed alone", {}).items():
        table.add_row(
            str(ranks), f"from {images:,} images a rank on" if images else "", "", "the model, at 90 % a rank"
        )
    return table


def chart(result: dict[str, Any], path: Path) -> None:
    """Images per second of all contenders, step only and from files, as a PNG."""
    import matplotlib as mpl

    mpl.use("Agg")
    import matplotlib.pyplot as plt

    batches = list(result["batches"])
    figure, panels = plt.subplots(1, 2, figsize=(9, 3.8), layout="constrained", sharey=True)
    for panel, (title, key) in zip(
        panels,
        (("step only", "step images per second"), ("from files, decoding included", "end to end images per second")),
        strict=True,
    ):
        for number, name in enumerate(LABELS):
            places = [place + (number - 1) * 0.27 for place in range(len(batches))]
            values = [result["batches"][batch][name][key] for batch in batches]
            bars = panel.bar(places, values, 0.25, label=LABELS[name], color=COLOURS[name])
            panel.bar_label(bars, fmt="{:,.0f}", fontsize=8, padding=2)
        panel.set_xticks(range(len(batches)), [f"batch {batch}" for batch in batches])
        panel.set_title(title, fontsize=10)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("images/s")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    figure.suptitle(f"{result['device']}, {result['date']}", fontsize=9)
    figure.savefig(path, dpi=150)
    plt.close(figure)
