"""Real ranks over gloo: one torchrun for each number of ranks, which goes through every check of ranks_script.py."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import cache

import pytest

from dcgan_dist.distributed.world import World
from tests.distributed.ranks_script import CHECKS, ON_KERNELS
from tests.running import run_command

Outcomes = Callable[..., list[dict[str, str | None]]]


@pytest.fixture(scope="module")
def outcomes(tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """By number of ranks: what each rank found."""

    @cache
    def on(ranks: int, **variables: str) -> list[dict[str, str | None]]:
        folder = tmp_path_factory.mktemp("outcomes")
        torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", str(ranks)]
        command = [*torchrun, "-m", "tests.distributed.ranks_script", str(folder)]
        result = run_command(command, env=variables, timeout=200)
        assert result.returncode == 0, result
        return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(ranks)]

    return on


@pytest.mark.parametrize("ranks", [2, 4])
@pytest.mark.parametrize("check", CHECKS)
def test_together(outcomes: Outcomes, check: Callable[[World], None], ranks: int) -> None:
    for rank, outcome in enumerate(outcomes(ranks)):
        assert outcome[check.__name__] is None, f"rank {rank}: {outcome[check.__name__]}"


@pytest.mark.parametrize("check", ON_KERNELS)
def test_together_on_the_kernels_of_a_gpu(outcomes: Outcomes, check: Callable[[World], None]) -> None:
    """In Triton's interpreter."""
    pytest.importorskip("triton")
    for rank, outcome in enumerate(outcomes(2, TRITON_INTERPRET="1")):
        assert outcome[check.__name__] is None, f"rank {rank}: {outcome[check.__name__]}"
