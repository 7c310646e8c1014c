"""The losses, on logits: a sigmoid is inside, where it cannot round to 0 or 1."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Loss:
    """What each network minimises; both functions take logits of real and of generated images, [n] each."""

    discriminator: Callable[[Tensor, Tensor], Tensor]
    generator: Callable[[Tensor, Tensor], Tensor]
    is_relative: bool = False
    """The generator's loss depends on the logits of real images too; otherwise they may be any."""
    judges_probability: bool = True
    """The sigmoid of a logit is the probability that an image is real."""


def _bce_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(x) - log(1 - D(G(z))), each averaged over its batch (Goodfellow et al. 2014, algorithm 1)."""
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


def _bce_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log D(G(z)), the loss that does not saturate (Goodfellow et al. 2014, section 3)."""
    return F.softplus(-fake_logits).mean()


def _hinge_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """max(0, 1 - D(x)) + max(0, 1 + D(G(z))) (Lim and Ye 2017; Miyato et al. 2018, equation 16)."""
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def _hinge_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-D(G(z)) (Miyato et al. 2018, equation 17)."""
    return -fake_logits.mean()


def _lsgan_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """(D(x) - 1)^2 / 2 + D(G(z))^2 / 2 (Mao et al. 2017, equation 9)."""
    return (real_logits - 1).square().mean() / 2 + fake_logits.square().mean() / 2


def _lsgan_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """(D(G(z)) - 1)^2 / 2 (Mao et al. 2017, equation 9)."""
    return (fake_logits - 1).square().mean() / 2


def _relativistic_discriminator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(x) - D(G(z))), image by image (Jolicoeur-Martineau 2019; Huang et al. 2024, equation 2)."""
    return F.softplus(fake_logits - real_logits).mean()


def _relativistic_generator(real_logits: Tensor, fake_logits: Tensor) -> Tensor:
    """-log sigmoid(D(G(z)) - D(x)), image by image (Huang et al. 2024, section 2)."""
    return F.softplus(real_logits - fake_logits).mean()


NOISE_STD = 0.01
"""Of the noise in `approximate_r1`, where images are in [-1, 1]: 1.3 of 255 levels."""


def approximate_r1(real_logits: Tensor, noisy_logits: Tensor) -> Tensor:
    """mean ||grad D(x)||^2 / 2 over real images x (Mescheder et al. 2018, equation 9), without that gradient; a scalar.

    The square of (D(x + s e) - D(x)) / s, with e from N(0, 1) and a small s = NOISE_STD, is ||grad D(x)||^2 on average
    over e (Lin et al. 2025, "approximated R1"). The exact penalty would need the gradient of a gradient. Synchronised
    batch norm and the convolutions of `gan/fast` have only a first one. This one needs logits alone, so it works with
    them, on any number of ranks, in a CUDA graph and in half precision.

    How near it comes depends on s. For two discriminators that were trained at 32 px, s = 0.01 gave 1.26 and 1.11 times
    the exact value in float64 and 1.32 and 1.35 times in bf16, where a smaller s drowns in rounding (0.003: 1.62 and
    3.5 times); with a larger one the function is no longer straight (0.03: 2.6 and 1.5 times).

    Noisy images are a part of the batch with batch statistics of its own. So the logits of the other images are those
    of a step without a penalty, and a change of the statistics counts as a change of the logit. The running statistics
    follow noisy images as they follow the others.
    """
    return ((noisy_logits - real_logits) / NOISE_STD).square().mean() / 2


BCE = Loss(_bce_discriminator, _bce_generator)
LOSSES = {
    "bce": BCE,
    "hinge": Loss(_hinge_discriminator, _hinge_generator, judges_probability=False),
    "lsgan": Loss(_lsgan_discriminator, _lsgan_generator, judges_probability=False),
    "relativistic": Loss(_relativistic_discriminator, _relativistic_generator, is_relative=True),
}
"""By the names of `train.loss`."""
