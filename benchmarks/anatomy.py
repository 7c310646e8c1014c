"""What one training step consists of: operations and bytes counted, shares of its stages, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile, record_function
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dcgan_dist.tracking.figures import peak_memory_gib

STAGES = ("backward", "average gradients", "optimizer")  # as the steps name them; everything else is forward and rest
VIEWS = ("view", "as_strided", "detach", "t", "transpose", "permute", "expand", "slice", "select", "split", "unbind")


def look_into(step: Callable[[], Any], device: str) -> dict[str, Any]:
    """The most memory used so far, and of one step, taken operation by operation, FLOPs, bytes and shares of stages."""
    peak = peak_memory_gib(torch.device(device))
    with FlopCounterMode(display=False) as flops, BytesCounted() as moved:
        step()
    on_gpu = device.startswith("cuda")
    with (
        profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as trace,
        record_function("step"),
    ):
        step()
    return {
        "peak memory GiB": peak,
        "flops": float(flops.get_total_flops()),
        "bytes": float(moved.bytes),
        "shares": _shares(trace.events(), on_gpu),
    }


def _shares(events: Any, on_gpu: bool) -> dict[str, float]:
    """Which part of a step each stage takes; together 1. On a GPU it is the kernels' time that is divided up."""
    on_host = [event for event in events if event.device_type == DeviceType.CPU]
    operators = [event for event in on_host if event.kernels and not event.is_user_annotation]

    def taken(stage: str) -> float:
        spans = [event.time_range for event in on_host if event.name == stage]
        if not on_gpu:
            return sum(span.elapsed_us() for span in spans)
        # A kernel belongs to the stage that lasted when it was started. The stage's own sum would miss all of backward,
        # which starts its kernels from another thread.
        return sum(
            sum(kernel.duration for kernel in event.kernels)
            for event in operators
            if any(span.start <= event.time_range.start <= span.end for span in spans)
        )

    shares = {stage: taken(stage) / taken("step") for stage in STAGES}
    return {"forward and rest": 1 - sum(shares.values()), **shares}


class BytesCounted(TorchDispatchMode):
    """Adds up what operators read and write, as if nothing stayed in a cache between two of them."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        if func.overloadpacket.__name__.rstrip("_") not in VIEWS:
            tensors = [leaf for leaf in tree_leaves((args, kwargs, result)) if isinstance(leaf, Tensor)]
            self.bytes += sum(tensor.numel() * tensor.element_size() for tensor in tensors)
        return result


def device_rates(device: str, precision: str) -> dict[str, float]:
    """What this device reaches at best: FLOP/s in a large matrix product, bytes/s in a large copy."""
    kind = {"bf16": torch.bfloat16, "fp16": torch.float16}.get(precision, torch.float32)
    size = 8192 if device.startswith("cuda") else 2048
    left, right = torch.randn(2, size, size, device=device, dtype=kind).unbind()
    source = torch.empty(2**28 if device.startswith("cuda") else 2**25, device=device)
    target = torch.empty_like(source)
    return {
        "flops per second": 2 * size**3 / _best_seconds(lambda: left @ right, device),
        "bytes per second": 2 * source.numel() * 4 / _best_seconds(lambda: target.copy_(source), device),
    }


def _best_seconds(action: Callable[[], Any], device: str, rounds: int = 8) -> float:
    seconds = []
    for _ in range(rounds):
        start = time.perf_counter()
        action()
        if device.startswith("cuda"):
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds)
