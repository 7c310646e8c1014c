"""Random numbers by position: what number k of a stream is depends on the seed and k alone.

A generator that is drawn from has a state, which ranks would have to share and checkpoints to hold. These numbers are
computed from their position instead, so any rank can have any of them at any time, and no two ranks the same.
"""

from __future__ import annotations

import math
from functools import lru_cache

import torch
from torch import Tensor

# The two multipliers and the increment of SplitMix64 (Steele et al. 2014, figure 16), as signed 64-bit numbers.
INCREMENT = 0x9E3779B97F4A7C15 - 2**64
FIRST_MULTIPLIER = 0xBF58476D1CE4E5B9 - 2**64
SECOND_MULTIPLIER = 0x94D049BB133111EB - 2**64

# A stream's numbers depend on its place here: new ones go to the end, or every run would change.
STREAMS = (
    *("order", "flip", "discriminator latents", "generator latents", "fixed latents", "initial weights"),
    *("generated latents", "arithmetic noise", "arithmetic groups"),
    *("evaluation latents", "evaluation images", "evaluation patches", "evaluation directions", "evaluation subsets"),
    *("rollback", "calibration latents", "penalty noise"),
    *("discriminator real augmentation", "discriminator fake augmentation"),
    *("generator real augmentation", "generator fake augmentation"),
)


def words(seed: int, stream: str, first: int | Tensor, count: int, device: torch.device) -> Tensor:
    """Numbers `first` to `first + count - 1` of a stream, int64 [count], all 64 bits random: SplitMix64.

    `first` may lie on the device, int64 [].
    """
    position = torch.arange(1, count + 1, dtype=torch.int64, device=device) + first
    return _mix(position.mul_(INCREMENT).add_(stream_key(seed, stream)))


def stream_seed(seed: int, stream: str, index: int = 0) -> int:
    """A seed, at least 0, for a `torch.Generator` that serves one purpose of the run."""
    return int(words(seed, stream, index, 1, torch.device("cpu")).item()) & (2**63 - 1)


def normal(seed: int, stream: str, first: int | Tensor, count: int, size: int, device: torch.device) -> Tensor:
    """Rows `first` to `first + count - 1` of a stream of N(0, 1) vectors: float64 [count, size] (Box and Muller 1958).

    Row k is the same whoever asks for it, alone or among others.
    """
    pairs = -(-size // 2)
    bits = words(seed, stream, first * pairs, count * pairs, device).view(count, pairs)
    high, low = (bits >> 32) & 0xFFFFFFFF, bits & 0xFFFFFFFF
    radius = ((high.double() + 0.5) / 2**32).log_().mul_(-2).sqrt_()
    angle = low.double().mul_(2 * math.pi / 2**32)
    return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :size]


def uniform(seed: int, stream: str, first: int | Tensor, count: int, size: int, device: torch.device) -> Tensor:
    """Rows `first` to `first + count - 1` of a stream of vectors of numbers in [0, 1): float64 [count, size].

    They are multiples of 2^-24, so in float32 they are the same numbers, and none rounds up to 1.
    """
    bits = words(seed, stream, first * size, count * size, device).view(count, size)
    return ((bits >> 40) & 0xFFFFFF).double().div_(2**24)


@lru_cache(maxsize=64)  # of a few streams, asked for at every step
def stream_key(seed: int, stream: str) -> int:
    """Where a stream starts, as a signed 64-bit number."""
    start = torch.tensor([seed, STREAMS.index(stream) + 1], dtype=torch.int64)
    return int(_mix(_mix(start[:1] + INCREMENT) + start[1:].mul(INCREMENT)).item())


def _mix(bits: Tensor) -> Tensor:
    bits = (bits ^ _shifted(bits, 30)) * FIRST_MULTIPLIER
    bits = (bits ^ _shifted(bits, 27)) * SECOND_MULTIPLIER
    return bits ^ _shifted(bits, 31)


def _shifted(bits: Tensor, places: int) -> Tensor:
    """Shifts right, filling with zeros: torch's own shift repeats the sign."""
    return (bits >> places) & ((1 << (64 - places)) - 1)
