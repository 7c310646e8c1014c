"""The two losses, on logits: the sigmoid is inside, where it cannot round to 0 or 1."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), each averaged over its batch (Goodfellow et al. 2014, algorithm 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def generator_loss(fake_logits: Tensor) -> Tensor:
    """-log D(G(z)), the loss that does not saturate (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()
