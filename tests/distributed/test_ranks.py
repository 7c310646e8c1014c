"""Real ranks over gloo: one torchrun for each number of ranks, which goes through every check of ranks_script.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache

import pytest

from dcgan_dist.distributed.world import World
from tests.distributed.ranks_script import CHECKS
from tests.running import run_command

Outcomes = Callable[[int], list[dict[str, str | None]]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """By number of ranks: what each rank found."""

    @cache
    def on(ranks: int) -> list[dict[str, str | None]]:
        folder = tmp_path_factory.mktemp("outcomes")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        result = run_command([*torchrun, "-m", "tests.distributed.ranks_script", str(folder)], timeout=200)
        assert result.returncode == 0, result
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]

    return on


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("check", CHECKS)
def test_together(outcomes: Outcomes, check: Callable[[World], None], ranks: int) -> None:
    for rank, outcome in enumerate(outcomes(ranks)):
        assert outcome[check.__name__] is None, f"rank {rank}: {outcome[check.__name__]}"
