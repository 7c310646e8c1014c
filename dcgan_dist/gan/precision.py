"""The arithmetic of the convolutions. Weights, Adam's state and batch norm's statistics stay in fp32."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Literal

import torch

PrecisionName = Literal["fp32", "bf16", "fp16", "fp64"]


@dataclass(frozen=True)
class Precision:
    """What the networks compute in: autocast for bf16 and fp16, double weights for fp64."""

    name: PrecisionName
    device: torch.device

    @property
    def weights(self) -> torch.dtype:
        """Type of the networks' parameters."""
        return torch.float64 if self.name == "fp64" else torch.float32

    @property
    def half(self) -> torch.dtype | None:
        """The type that convolutions compute in; None where it is that of the weights."""
        return {"bf16": torch.bfloat16, "fp16": torch.float16}.get(self.name)

    def autocast(self) -> contextlib.AbstractContextManager[object]:
        """Runs convolutions in half precision inside the block, where that is asked for."""
        if self.half is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.half, cache_enabled=False)

    def scaler(self) -> torch.amp.GradScaler:
        """A loss scaler for one optimizer; it does nothing but in fp16, whose gradients would underflow."""
        return torch.amp.GradScaler(self.device.type, enabled=self.name == "fp16")


def best_precision(device: torch.device) -> PrecisionName:
    """bf16 where the hardware has instructions for it; otherwise fp16 on a GPU and fp32 on a CPU."""
    if device.type == "cuda":
        return "bf16" if torch.cuda.get_device_capability(device) >= (8, 0) else "fp16"
    return "bf16" if cpu_computes_in_bf16() else "fp32"


def cpu_computes_in_bf16() -> bool:
    """True on CPUs with AVX512-BF16 or AMX; elsewhere bf16 is emulated and slower than fp32."""
    return _probe("_is_amx_tile_supported") or _probe("_is_avx512_bf16_supported")


def _probe(name: str) -> bool:
    return getattr(torch.cpu, name, lambda: False)()  # private, hence the care
