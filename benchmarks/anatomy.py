"""What one training step consists of: operations and bytes counted, time by stage, memory."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from dcgan_dist.tracking.throughput import peak_memory_gib

STAGES = ("draw", "discriminator", "generator", "backward", "average gradients", "optimizer")
VIEWS = ("view", "as_strided", "detach", "t", "transpose", "permute", "expand", "slice", "select", "split", "unbind")


def look_into(step: Callable[[], Any], device: str) -> dict[str, float]:
    """FLOPs and bytes of a step, seconds of its stages (where it names them), and the most memory used so far."""
    with FlopCounterMode(display=False) as flops, BytesCounted() as moved:
        step()
    found: dict[str, float] = {"flops": float(flops.get_total_flops()), "bytes": float(moved.bytes)}
    on_gpu = device.startswith("cuda")
    with profile(activities=[ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * on_gpu) as trace:
        step()
    for event in trace.key_averages():
        if event.key in STAGES:
            found[f"seconds {event.key}"] = (event.device_time_total if on_gpu else event.cpu_time_total) / 1e6
    found["peak memory GiB"] = peak_memory_gib(torch.device(device))
    return found


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
