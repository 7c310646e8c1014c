"""Two ranks that share one GPU over gloo train the same networks as one, in every precision."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.gpu.device import DEVICE, VISIBLE, on_gpu_or_rehearsed
from tests.running import run_command

pytestmark = on_gpu_or_rehearsed


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of the two ranks found; one start for all precisions."""
    folder = tmp_path_factory.mktemp("two")
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2"]
    result = run_command([*torchrun, "-m", "tests.gpu.two_ranks", str(folder)], VISIBLE, timeout=200)
    assert result.returncode == 0, result
    return [json.loads((folder / f"{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [("fp64", 1e-8), ("fp32", 2e-2), ("bf16", 0.1), ("fp16", 5e-2)],  # of the first steps; fp32 is TF32 on a GPU
)
def test_two_ranks_take_the_steps_of_one(answers: list[dict[str, Any]], precision: str, tolerance: float) -> None:
    for answer in answers:
        assert answer["device"] == DEVICE.type
        one = answer["found"][precision]
        assert one["finite"]
        rows = zip(one["together"], one["alone"], strict=True)
        for step, (together, alone) in enumerate(rows):
            if precision == "fp64" or step < 2:
                for name in ("discriminator_loss", "generator_loss"):
                    assert together[name] == pytest.approx(alone[name], rel=tolerance), (step, name)


def test_two_ranks_draw_the_grid_of_one(answers: list[dict[str, Any]]) -> None:
    assert all(answer["found"]["fp64"]["grid difference"] == 0 for answer in answers)
