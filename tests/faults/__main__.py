"""Tries every fault many times and shows in a table how the runs got over it.

python -m tests.faults --rounds 20                     all faults, twenty times each
python -m tests.faults --rounds 5 --only SIGTERM       those with this in their name
python -m tests.faults --mutations 1000                damages files at random instead, and reads them
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from tests.faults.lab import Lab, Outcome
from tests.faults.mutations import Sample, mutate_and_read
from tests.faults.scenarios import SCENARIOS

console = Console()


@dataclass
class Tally:
    """What the rounds of one fault have shown."""

    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Whether a round did not end as it must."""
        return bool(self.problems) or any(outcome.identical is False for outcome in self.outcomes)

    def cells(self) -> list[str]:
        """The row of the table, without the fault's name."""
        seconds = [outcome.seconds for outcome in self.outcomes if outcome.seconds is not None]
        redone = [outcome.redone for outcome in self.outcomes if outcome.redone is not None]
        identical = [outcome.identical for outcome in self.outcomes if outcome.identical is not None]
        rounds = len(self.outcomes) + len(self.problems)
        return [
            str(rounds),
            f"{len(self.outcomes)}/{rounds}",
            f"{statistics.median(seconds):.1f} / {max(seconds):.1f}" if seconds else "",
            str(max(redone)) if redone else "",
            f"{sum(identical)}/{len(identical)}" if identical else "",
        ]


def main() -> int:
    """1 if a round failed."""
    options = _parse()
    console.print(f"seed {options.seed}")
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        lab = Lab.set_up(Path(folder), options.seed)
        if options.mutations:
            return _mutate(lab, options.mutations, options.seed)
        names = [name for name in SCENARIOS if options.only.lower() in name.lower()]
        if not names:
            console.print(f"no fault has {options.only!r} in its name; there are: {', '.join(SCENARIOS)}")
            return 2
        tallies = _try_all(lab, names, options.rounds, options.seed)
    console.print(_table(tallies))
    return int(any(tally.failed for tally in tallies.values()))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.faults", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=1, help="how often each fault is tried")
    parser.add_argument("--only", default="", help="part of a fault's name")
    parser.add_argument("--mutations", type=int, default=0, help="damage files this often instead")
    parser.add_argument("--seed", type=int, default=None, help="of the random moments; printed, so that it can be kept")
    options = parser.parse_args()
    options.seed = time.time_ns() % 10**6 if options.seed is None else options.seed
    return options


def _try_all(lab: Lab, names: Sequence[str], rounds: int, seed: int) -> dict[str, Tally]:
    tallies = {name: Tally() for name in names}
    columns = (TextColumn("{task.description:40}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=rounds * len(names))
        for number in range(rounds):
            for name in names:
                progress.update(task, description=name)
                lab.chance = random.Random(f"{seed} {number} {name}")  # so that --only meets the same moments
                _try(lab, name, tallies[name])
                progress.advance(task)
    return tallies


def _try(lab: Lab, name: str, tally: Tally) -> None:
    try:
        outcome = SCENARIOS[name](lab)
    except Exception:
        problem = traceback.format_exc(limit=-3)
        tally.problems.append(problem)
        console.print(f"[red]{name}: failed[/]")
        console.print(problem, markup=False, highlight=False)
        return
    tally.outcomes.append(outcome)
    console.print(f"{name}: {_in_words(outcome)}", highlight=False)


def _in_words(outcome: Outcome) -> str:
    parts = [outcome.detail] if outcome.detail else []
    if outcome.seconds is not None:
        parts.append(f"{outcome.seconds:.1f} s")
    if outcome.redone is not None:
        parts.append(f"{outcome.redone} images redone")
    if outcome.identical is not None:
        parts.append("bit-identical" if outcome.identical else "[red]NOT bit-identical[/]")
    return ", ".join(parts)


def _table(tallies: dict[str, Tally]) -> Table:
    table = Table(title="How runs get over faults")
    table.add_column("fault")
    for name in ("rounds", "survived", "seconds (median / max)", "images redone (max)", "bit-identical"):
        table.add_column(name, justify="right")
    for name, tally in tallies.items():
        table.add_row(name, *tally.cells(), style="red" if tally.failed else None)
    return table


def _mutate(lab: Lab, rounds: int, seed: int) -> int:
    chance, sample = random.Random(seed), Sample.make(lab)
    failures = 0
    columns = (TextColumn("mutations"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console) as progress:
        for _ in progress.track(range(rounds)):
            if problem := mutate_and_read(sample, chance):
                failures += 1
                console.print(problem, markup=False, highlight=False)
    console.print(f"{rounds} mutations, {failures} of them ended in something else than one line or the right result")
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
