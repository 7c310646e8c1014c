"""Images as the networks know them, in [-1, 1], and as pixels."""

from __future__ import annotations

import torch
from torch import Tensor


def to_signed_unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 pixels 0..255 become numbers in [-1, 1], the range of the generator's tanh."""
    return pixels.to(dtype).mul_(2 / 255).sub_(1)


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] become uint8 pixels 0..255, rounded; the inverse of `to_signed_unit`."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def join(pixels: Tensor, fakes: Tensor) -> Tensor:
    """Pixels, uint8 [n, 3, size, size], in [-1, 1], and generated images [m, 3, size, size] behind them: [n + m, ...].

    The result has the precision of `fakes`; pixels are scaled in single precision at least.
    """
    full = torch.promote_types(fakes.dtype, torch.float32)
    return torch.cat([to_signed_unit(pixels, full).to(fakes.dtype), fakes])
