"""How fast a step is: ours beside the tutorial's and that of pytorch/examples, in turns, and what ours consists of."""

from __future__ import annotations

import re
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.autograd import DeviceType
from torch.profiler import ProfilerActivity, profile
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.anatomy import BytesCounted, device_rates
from benchmarks.gpu_check import Options
from benchmarks.ours import Ours
from benchmarks.plain_ways import Examples, Plain, Tutorial
from dcgan_dist.config import TrainSection
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.fast.blocks import BlocksToImage, ImageToBlocks
from dcgan_dist.training.engine import STEPS_BEFORE_CAPTURE

BATCHES = {"cuda": (128, 1024), "cpu": (8,)}
ROUNDS, TURN_SECONDS = 5, 0.15
SWITCHES: dict[str, TrainSection] = {
    "ours": TrainSection(),
    "deterministic false": TrainSection(deterministic=False),
    "reuse_fakes false": TrainSection(reuse_fakes=False),
    "precision fp16": TrainSection(precision="fp16"),
    "precision fp32": TrainSection(precision="fp32"),
    "engine ddp": TrainSection(engine="ddp"),
}
"""Every switch that a user has on how a step runs, one at a time."""
KINDS = {
    "batch norm": r"^_(measure|combine|normalise|gradient_sums|add_up|input_gradient)$|batch_norm|batchnorm",
    "images, latents": r"^_(to_blocks|from_blocks|join|take|draw_normal)$",
    "padding, layout": r"nchwToNhwc|nhwcToNchw|AddPadding|[pP]adding",
    "convolution": r"conv|xmma|cutlass|implicit|wgrad|dgrad|fprop|gemm|nvjet",
    "copies": r"^Mem(cpy|set)|copy|CatArray|index|gather",
    "Adam, average": r"multi_tensor|foreach|fused_adam|lerp",
    "activations": r"leaky|relu|threshold|clamp|tanh|where",
}
"""What a kernel's name tells of its purpose; the first that is found counts."""
KINDS_OF_BLOCKS = (ImageToBlocks, BlocksToImage)
TINY_US = 5.0  # a kernel of less is hardly more than its launch


@dataclass
class Contender:
    """One way to take a step, with the flags of cuDNN that it is to be run under."""

    step: Callable[[], object]
    deterministic: bool
    search: bool
    ours: Ours | None = None

    def run(self, steps: int) -> float:
        """Seconds of a step, the mean over several in a row."""
        torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = self.deterministic, self.search
        _wait()
        start = time.perf_counter()
        for _ in range(steps):
            self.step()
        _wait()
        return (time.perf_counter() - start) / steps


def run(options: Options, tell: Callable[[dict[str, Any]], None]) -> str | None:
    """Figures by batch size; told after each, so that the first stays if the second takes too long."""
    jpegs = options.out / "one-picture"  # the plain ways want files to load, and none are loaded here
    jpegs.mkdir(exist_ok=True)
    Image.new("RGB", (64, 64)).save(jpegs / "grey.jpg")
    found: dict[str, Any] = {"rates": device_rates(options.device, "bf16" if options.device == "cuda" else "fp32")}
    for batch in BATCHES[options.device]:
        found[str(batch)] = _at(batch, options, found["rates"])
        tell(found)
    shutil.rmtree(jpegs)
    return None


def _at(batch: int, options: Options, rates: dict[str, float]) -> dict[str, Any]:
    """All contenders at one batch size, and what a step of ours consists of."""
    contenders = _open(batch, options)
    rehearsal = options.device == "cpu"
    steps = {name: 1 if rehearsal else max(3, int(TURN_SECONDS / one.run(3))) for name, one in contenders.items()}
    turns = [
        {name: one.run(steps[name]) for name, one in contenders.items()} for _ in range(1 if rehearsal else ROUNDS)
    ]
    seconds = {name: statistics.median(turn[name] for turn in turns) for name in contenders}
    ours = contenders["ours"]
    assert ours.ours
    work = _work(ours.ours)
    rows = {
        name: {"ms": 1e3 * one, "images per second": batch / one, "times the tutorial's": seconds["tutorial"] / one}
        for name, one in seconds.items()
    }
    result = {
        "ways": rows,
        "share of the FLOP/s": work["flops"] / seconds["ours"] / rates["flops per second"],
        "share of the bytes/s": work["bytes"] / seconds["ours"] / rates["bytes per second"],
        **work,
        "kernels": {} if rehearsal else kernels_by_kind(ours.step),
        "peak memory GiB": 0.0 if rehearsal else torch.cuda.max_memory_allocated() / 2**30,
    }
    for one in contenders.values():
        if one.ours:
            one.ours.update.close()
    contenders.clear()
    if not rehearsal:
        torch.cuda.empty_cache()
    return result


def _open(batch: int, options: Options) -> dict[str, Contender]:
    """Builds every contender and takes the steps that come before it is at full speed."""
    device = torch.device(options.device, 0) if options.device == "cuda" else torch.device("cpu")
    world, found = World(0, 1, 0, 1, device), {}
    for name, kind in (("tutorial", Tutorial), ("pytorch/examples", Examples)):
        plain: Plain = kind(options.out / "one-picture", batch, device)
        found[name] = Contender(plain.step, False, kind is Examples)
    for name in SWITCHES if options.device == "cuda" else ["ours"]:
        train = SWITCHES[name]
        ours = Ours(None, batch, world, train, threads=2)
        found[name] = Contender(ours.step, train.deterministic, not train.deterministic, ours)
    for one in found.values():
        one.run(STEPS_BEFORE_CAPTURE + 3 if options.device == "cuda" else 1)
    return found


def _wait() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def _work(ours: Ours) -> dict[str, float]:
    """Floating-point operations and bytes of a step, as if nothing stayed in a cache between two operations."""
    of_kernels = 0

    def count(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Forward reads a map twice and writes one; backward reads four and writes one.
        nonlocal of_kernels
        of_kernels += 8 * output.numel() * output.element_size() * (output.is_cuda and layer.training)

    def count_blocks(layer: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        # Images are read and blocks written, or the other way round; and so are their gradients.
        nonlocal of_kernels
        images = inputs[0] if isinstance(layer, ImageToBlocks) else output
        both = images.numel() * (1 + (1 + 2 / images.shape[-1]) ** 2 * 16 / 12)
        of_kernels += int((1 + images.requires_grad) * both * images.element_size())

    networks = (ours.state.generator, ours.state.discriminator)
    blocks = [layer for network in networks for layer in network.modules() if isinstance(layer, KINDS_OF_BLOCKS)]
    layers = [layer for network in networks for layer in network.modules() if isinstance(layer, SyncBatchNorm2d)]
    hooks = [layer.register_forward_hook(count) for layer in layers]
    hooks += [layer.register_forward_hook(count_blocks) for layer in blocks]
    with FlopCounterMode(display=False) as flops, BytesCounted() as moved:
        ours.eager_step()
    for hook in hooks:
        hook.remove()
    return {"flops": float(flops.get_total_flops()), "bytes": float(moved.bytes + of_kernels)}


def kernels_by_kind(step: Callable[[], object], steps: int = 5) -> dict[str, Any]:
    """Microseconds and launches of one step by kind of kernel, and the ten kernels that take most."""
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as trace:
        for _ in range(steps):
            step()
        _wait()
    by_name: dict[str, list[float]] = {}
    for event in trace.events() or ():
        if event.device_type == DeviceType.CUDA and not event.is_user_annotation:
            by_name.setdefault(event.name, []).append(event.time_range.elapsed_us())
    kinds: dict[str, dict[str, float]] = {}
    for name, times in by_name.items():
        kind = kinds.setdefault(kind_of(name, statistics.median(times)), {"us": 0.0, "launches": 0.0})
        kind["us"] += sum(times) / steps
        kind["launches"] += len(times) / steps
    most = sorted(by_name.items(), key=lambda item: -sum(item[1]))[:10]
    return {
        "kinds": dict(sorted(kinds.items(), key=lambda item: -item[1]["us"])),
        "launches": sum(kind["launches"] for kind in kinds.values()),
        "us": sum(kind["us"] for kind in kinds.values()),
        "most": [
            {"kernel": name[:120], "us": sum(times) / steps, "launches": len(times) / steps} for name, times in most
        ],
    }


def kind_of(name: str, us: float) -> str:
    """The first kind whose pattern is found in a kernel's name."""
    found = next((kind for kind, pattern in KINDS.items() if re.search(pattern, name)), None)
    return found or ("tiny" if us < TINY_US else "other")
