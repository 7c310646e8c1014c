"""How many kernels a step starts and what they move: on a GPU, or counted in Triton's interpreter (TRITON_INTERPRET=1).

What an operator dispatches counts as one launch, views and memory alone as none. A GPU's own count is in `gpu_check`.
A launch reads or writes each tensor that it is given once, as if nothing stayed in a cache between two of them.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import cache
from typing import Any

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

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
    """Counts operators by kind, Triton's kernels, and the bytes that both move."""

    def __init__(self) -> None:
        super().__init__()
        self.operators: Counter[str] = Counter()
        self.kernels = 0
        self.bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.overloadpacket.__name__
        result = func(*args, **(kwargs or {}))
        if name.rstrip("_") not in NO_LAUNCH:
            self.operators[name] += 1
            self.bytes += bytes_of((args, kwargs, result))
        return result

    def kernel(self, *args: Any, **kwargs: Any) -> None:
        """Counts one of Triton's in place of running it: what it would compute changes no count."""
        self.kernels += 1
        self.bytes += bytes_of((args, kwargs))

    def by_kind(self) -> dict[str, int]:
        """Operators by kind, and Triton's kernels."""
        found: Counter[str] = Counter({"Triton": self.kernels})
        for name, count in self.operators.items():
            kind = next((kind for kind, names in KINDS.items() if name.rstrip("_") in names), "other")
            found[kind] += count
        return dict(found)


def bytes_of(given: object) -> int:
    """Bytes of all tensors in a structure."""
    tensors = [leaf for leaf in tree_leaves(given) if isinstance(leaf, torch.Tensor)]
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)


@cache
def count(images: int, **train: Any) -> Launches:
    """The launches of one step at 64 pixels on one GPU, out of a cache as large as the batch."""
    from triton.runtime.interpreter import GridExecutor
    from triton.runtime.jit import JITFunction

    world, launches = World(0, 1, 0, 1, DEVICE), Launches()
    config = TrainConfig(train=TrainSection(precision="bf16", **train))
    precision = Precision("bf16", DEVICE)
    state = initial_state(config, world, precision)
    plan = BatchPlan(0, images, images, 0, images, True)
    cache = CachedPixels(torch.zeros(images, 64, 64, 3, dtype=torch.uint8, device=DEVICE))
    numbers = StepNumbers(config, plan, world, torch.float32)
    inputs = StepInputs(step_images(cache, plan, 0), numbers, Rates([], images, 0.0), 0)
    update = open_update(config, state, precision, inputs, plan, world)
    eager = update.eager if isinstance(update, CapturedUpdate) else update
    with pytest.MonkeyPatch.context() as patch:
        for kind, method in ((JITFunction, "run"), (GridExecutor, "__call__")):
            patch.setattr(kind, method, lambda _, *args, **kwargs: launches.kernel(*args, **kwargs))
        inputs.prepare(0, 2)
        eager()
        launches.kernels = launches.bytes = 0
        with launches:
            eager()
    return launches


@pytest.mark.parametrize(("reuse_fakes", "most"), [(False, 210), (True, 190)])
def test_a_step_starts_few_kernels(reuse_fakes: bool, most: int) -> None:
    launches = count(images=2, reuse_fakes=reuse_fakes)
    total = launches.kernels + sum(launches.operators.values())
    print(total, launches.by_kind(), launches.operators.most_common())
    assert total <= most, (launches.by_kind(), launches.operators.most_common())


def test_a_step_moves_few_bytes_besides_those_of_its_maps_and_weights() -> None:
    """Convolutions cannot do with less than 5.5 MB an image, and batch norm with its activations takes 7.9."""
    few, many = (count(images=images, reuse_fakes=True).bytes for images in (2, 4))
    an_image = (many - few) / 2
    print(f"{an_image / 1e6:.2f} MB an image and {(few - 2 * an_image) / 1e6:.0f} MB a step")
    assert an_image < 14.5e6
    assert few - 2 * an_image < 290e6
