"""Everything that the stages found, on one screen."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table

COLOURS = {"ok": "green", "failed": "bold red", "timed out": "bold red", "left out": "yellow"}


def print_table(result: dict[str, Any]) -> None:
    """Prints one line a stage with its verdict, and the figures of the stages beneath their names."""
    versions = ", ".join(f"{name} {version}" for name, version in result["versions"].items())
    table = Table(title=f"{result['device']}\n{versions}, {result['date']}", title_justify="left", show_edge=False)
    for column in ("stage", "", "s"):
        table.add_column(column, justify="right" if column == "s" else "left", no_wrap=True)
    table.add_column("what was found", overflow="fold")
    tell = {
        "tests": _tests, "learns": _learns, "steps": _steps, "decoding": _decoding, "whole_run": _whole_run,
        "collectives": _collectives, "search": _search,
    }  # fmt: skip
    for name, found in result["stages"].items():
        lines = _lines(tell[name], found)
        verdict = found["verdict"]
        colour = COLOURS[verdict]
        table.add_row(
            name.replace("_", " "), f"[{colour}]{verdict}[/]", f"{found.get('seconds', 0):.0f}", "\n".join(lines)
        )
    console = Console(width=110)
    console.print(table)
    passed = result["passed"]
    console.print(f"[{'green' if passed else 'bold red'}]{'everything is right here' if passed else 'NOT RIGHT'}[/]")


def _lines(tell: Any, found: dict[str, Any]) -> list[str]:
    try:
        lines = tell(found)
    except (KeyError, IndexError, TypeError):  # a stage that ended too early
        lines = []
    return lines + ([f"[bold]{found['why']}[/]"] if found.get("why") else [])


def _tests(found: dict[str, Any]) -> list[str]:
    return [", ".join(f"{number} {kind}" for kind, number in found["counts"].items())]


def _learns(found: dict[str, Any]) -> list[str]:
    lines = []
    for name in ("gpu", "cpu", "64 px"):
        if name in found and found[name]["status"] == "done":
            one, last = found[name], found[name]["last"]
            swd = f"  swd {one['swd']:.1f}" if one["swd"] else ""
            lines.append(
                f"{name:6}{one['images']:>9,} images  D {last['loss/discriminator']:.2f} "
                f"G {last['loss/generator']:.2f}  gradient <= {one['largest gradient']:.0f}  "
                f"diversity {one['diversity']:.2f}{swd}"
            )
    return lines


def _steps(found: dict[str, Any]) -> list[str]:
    batches = [batch for batch in found if batch.isdigit()]
    lines = [f"{'images/s at batch':30}" + "".join(f"{batch:>10}{'':8}" for batch in batches)]
    for name in found[batches[0]]["ways"]:
        ways = [found[batch]["ways"][name] for batch in batches if name in found[batch]["ways"]]
        cells = [f"{way['images per second']:>10,.0f} x{way[TIMES]:<6.2f}" for way in ways]
        lines.append(f"{'  ' if name not in NAMES else ''}{name:{30 if name in NAMES else 28}}" + "".join(cells))
    for batch in batches:
        one = found[batch]
        lines.append(
            f"batch {batch}: {one['share of the FLOP/s']:.0%} of the card's FLOP/s, "
            f"{one['share of the bytes/s']:.0%} of its bytes/s"
        )
        if kernels := one.get("kernels"):
            parts = [f"{kind} {of['us']:,.0f} us/{of['launches']:.0f}" for kind, of in kernels["kinds"].items()]
            lines.append(f"  {kernels['us']:,.0f} us in {kernels['launches']:.0f} launches: {', '.join(parts)}")
    return lines


NAMES = ("tutorial", "pytorch/examples", "ours")
TIMES = "times the tutorial's"


def _decoding(found: dict[str, Any]) -> list[str]:
    lines = []
    for load, off in found["pixels"].items():
        rates = [
            f"{row['threads']}: {row['images per second']:,.0f}"
            for row in found["reading"]
            if row["engine"] == float(load)
        ]
        stream = [row["images per second"] for row in found["streaming"] if row["engine"] == float(load)]
        lines.append(
            f"JPEG engine {float(load):.0%}: images/s by threads {', '.join(rates)}; streaming {stream[0]:,.0f}; "
            f"off in another batch {off['in another batch']:.0f}/255, from Pillow {off[FROM_PILLOW]:.0f}/255"
        )
    return lines


FROM_PILLOW = "from Pillow's"


def _whole_run(found: dict[str, Any]) -> list[str]:
    lines = []
    for start, one in found.items():
        if isinstance(one, dict) and one["images"]:
            stages = ", ".join(f"{name} {seconds:.1f}" for name, seconds in one["stages"].items())
            lines.append(f"{start}: {one['images']:,} images in {one['from command to end']:.1f} s: {stages}")
    return lines


def _collectives(found: dict[str, Any]) -> list[str]:
    return [
        f"batch {batch}: {one['collectives']} collectives, {'in the graph' if one['recorded'] else 'one by one'}; "
        f"a step {one['ms one of many']:.2f} ms, without them {one['ms alone']:.2f}, in symmetric memory "
        + (f"{one[SYMMETRIC]:.2f}" if SYMMETRIC in one else f"not ({one['no symmetric memory']})")
        for batch, one in found.items()
        if batch.isdigit()
    ]


SYMMETRIC = "ms in symmetric memory"


def _search(found: dict[str, Any]) -> list[str]:
    return [
        f"batch {batch}: a step takes {one['ms']['chosen']:.2f} ms with the deterministic kernels that cuDNN chooses, "
        f"{one['ms']['searched']:.2f} with the fastest it finds; two searches end "
        + ("alike" if one["weights"]["searched"] == one["weights"]["searched again"] else "DIFFERENTLY")
        for batch, one in found.items()
        if batch.isdigit()
    ]
