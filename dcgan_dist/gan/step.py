"""One training step: the discriminator learns from real and drawn images, then the generator from its verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dcgan_dist.gan.images import join
from dcgan_dist.gan.learner import Learner, stage
from dcgan_dist.gan.losses import BCE, Loss
from dcgan_dist.gan.precision import Precision


class StepMetrics(NamedTuple):
    """Means over the batch, scalars on the device.

    A probability is that of "real" in the discriminator's eyes, or for the relativistic loss of
    "more real than the other of a pair"; for a loss that knows none, the mean logit.
    """

    discriminator_loss: Tensor
    generator_loss: Tensor
    real_probability: Tensor
    fake_probability: Tensor
    non_finite: Tensor
    """How many of the two updates were left out because a gradient was infinite or not a number."""


@dataclass
class GanStep:
    """The update of both networks. It knows one batch and nothing of where the rest of it is.

    The discriminator's batch norm layers must know `parts`, as those of `sync_batch_norm` do.
    """

    generator: Learner
    discriminator: Learner
    precision: Precision
    loss_weight: float = 1.0
    """Images of this batch over those of an average one, where batches that are averaged differ in size."""
    loss: Loss = BCE
    reuse_fakes: bool = False
    """The generator learns from the images that the discriminator has just learned from, and not from new ones."""
    join: Callable[[Tensor, Tensor], Tensor] = join
    """Puts pixels and generated images into one batch; `gan.images.join`, or an equal that is faster."""

    def __call__(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> StepMetrics:
        """Updates the discriminator with `first_latents`, then the generator with `second_latents`, or with the same.

        pixels: uint8 [n, 3, size, size]; both latents: [n, latent_size].
        """
        self.generator.refresh()
        self.discriminator.refresh()
        with stage("draw"), torch.set_grad_enabled(self.reuse_fakes):
            fake_images = self.generator(first_latents)
        with stage("discriminator"):
            d_loss, d_lost, real_logits, fake_logits = self._update_discriminator(pixels, fake_images.detach())
        # Only now may the generator go through the discriminator: a second pass before the first one's backward
        # would lose the discriminator's averaged gradients without an error.
        with stage("generator"):
            g_loss, g_lost = self._update_generator(second_latents, fake_images, pixels)
        if self.loss.is_relative:  # more real than the other image of its pair
            real_logits, fake_logits = real_logits - fake_logits, fake_logits - real_logits
        if self.loss.judges_probability:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        return StepMetrics(d_loss, g_loss, real_logits.mean(), fake_logits.mean(), d_lost + g_lost)

    def _update_discriminator(self, pixels: Tensor, fake_images: Tensor) -> tuple[Tensor, ...]:
        real_logits, fake_logits = self._judge(pixels, fake_images)
        loss = self.loss.discriminator(real_logits, fake_logits)
        lost = self.discriminator.descend(loss * self.loss_weight)
        self.discriminator.refresh()
        return loss.detach(), lost, real_logits.detach(), fake_logits.detach()

    def _update_generator(self, latents: Tensor, fake_images: Tensor, pixels: Tensor) -> tuple[Tensor, Tensor]:
        with self.discriminator.frozen():
            images = fake_images if self.reuse_fakes else self.generator(latents)
            if self.loss.is_relative:
                real_logits, fake_logits = self._judge(pixels, images)
            else:
                real_logits = fake_logits = self._full(self.discriminator(images))
        loss = self.loss.generator(real_logits, fake_logits)
        lost = self.generator.descend(loss * self.loss_weight)
        return loss.detach(), lost

    def _judge(self, pixels: Tensor, fake_images: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's logits of real and generated images.

        Both go through it together, each half with batch statistics of its own: the same as one after the other, in
        half the calls.
        """
        both = self.join(pixels, fake_images)
        with _statistics_of_parts(self.discriminator.network, 2):
            real_logits, fake_logits = self.discriminator(both).chunk(2)
        return self._full(real_logits), self._full(fake_logits)

    def _full(self, logits: Tensor) -> Tensor:
        return logits.to(self.precision.weights)


@contextlib.contextmanager
def _statistics_of_parts(network: nn.Module, parts: int) -> Iterator[None]:
    """Gives each of so many parts of a batch statistics of its own, in every batch norm layer of `network`."""
    layers = [layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    for layer in layers:
        if not hasattr(layer, "parts"):
            raise TypeError(f"{type(layer).__name__} cannot keep the statistics of two halves of a batch apart")
        layer.parts = parts  # type: ignore[assignment]
    try:
        yield
    finally:
        for layer in layers:
            layer.parts = 1  # type: ignore[assignment]
