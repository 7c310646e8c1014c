"""How many kernels a step starts: on a GPU, or counted in Triton's interpreter (TRITON_INTERPRET=1).

What an operator dispatches counts as one launch, views and memory alone as none. A GPU's own count is in `gpu_check`.
"""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dcgan_dist.config import TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan, CachedPixels
from dcgan_dist.data.step_images import step_images
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.precision import Precision
from dcgan_dist.training.by_position import Rates, StepInputs, StepNumbers
from dcgan_dist.training.engine import CapturedUpdate, open_update
from dcgan_dist.training.state import initial_state

ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a CUDA device or TRITON_INTERPRET=1"
)
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")

NO_LAUNCH = (
    *("view", "_unsafe_view", "as_strided", "detach", "t", "transpose", "permute", "expand", "slice", "select"),
    *("split", "unbind", "unsqueeze", "squeeze", "alias", "empty", "empty_like", "empty_strided", "new_empty"),
    *("_has_compatible_shallow_copy_type", "unflatten", "reshape", "lift_fresh", "resize", "set"),
    *("_record_function_enter_new", "_record_function_exit"),
)
KINDS = {
    "convolution": ("convolution", "convolution_backward", "mm"),
    "casts and copies": ("_to_copy", "copy", "clone", "cat", "_foreach_copy"),
    "Adam, average": ("_fused_adam", "_foreach_lerp", "_foreach_mul", "_foreach_add", "linalg_vector_norm"),
}


class Launches(TorchDispatchMode):
    """Counts operators by kind, and Triton's kernels."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.kernels = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        if name.rstrip("_") not in NO_LAUNCH:
            self.operators[name] += 1
        return func(*args, **(kwargs or {}))

    def by_kind(self) -> dict[str, int]:
        """Operators by kind, and Triton's kernels."""
        found: Counter[str] = Counter({"Triton": self.kernels})
        for name, count in self.operators.items():
            kind = next((kind for kind, names in KINDS.items() if name.rstrip("_") in names), "other")
            found[kind] += count
        return dict(found)


def count(monkeypatch: pytest.MonkeyPatch, **train: Any) -> Launches:
    """The launches of one step at 64 pixels on one GPU, out of the cache."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    world, launches = World(0, 1, 0, 1, DEVICE), Launches()
    config = TrainConfig(train=TrainSection(precision="bf16", **train))
    precision = Precision("bf16", DEVICE)
    state = initial_state(config, world, precision)
    plan = BatchPlan(0, 8, 4, 0, 4, True)
    cache = CachedPixels(torch.zeros(8, 64, 64, 3, dtype=torch.uint8, device=DEVICE))
    numbers = StepNumbers(config, plan, world, torch.float32)
    inputs = StepInputs(step_images(cache, plan, 0), numbers, Rates([], 8, 0.0), 0)
    update = open_update(config, state, precision, inputs, plan, world)
    eager = update.eager if isinstance(update, CapturedUpdate) else update
    for kind, method in ((JITFunction, "run"), (GridExecutor, "__call__")):

        def counted(*args: Any, **kwargs: Any) -> None:
            launches.kernels += 1  # and no more: what it would have computed changes no count

        monkeypatch.setattr(kind, method, counted)
    inputs.prepare(0, 2)
    eager()
    launches.kernels = 0
    with launches:
        eager()
    return launches


@pytest.mark.parametrize(("reuse_fakes", "most"), [(False, 220), (True, 200)])
def test_a_step_starts_few_kernels(monkeypatch: pytest.MonkeyPatch, reuse_fakes: bool, most: int) -> None:
    launches = count(monkeypatch, reuse_fakes=reuse_fakes)
    total = launches.kernels + sum(launches.operators.values())
    print(total, launches.by_kind(), launches.operators.most_common())
    assert total <= most, (launches.by_kind(), launches.operators.most_common())
