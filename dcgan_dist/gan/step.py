"""One training step: the discriminator learns from real and drawn images, then the generator from its verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dcgan_dist.gan.augment import augment
from dcgan_dist.gan.discriminator import take_power_step
from dcgan_dist.gan.images import join, to_signed_unit
from dcgan_dist.gan.learner import Learner, stage
from dcgan_dist.gan.losses import BCE, NOISE_STD, Loss, approximate_r1
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


class Batch(NamedTuple):
    """What a step works on, all of it on the device."""

    pixels: Tensor
    """Real images, uint8 [n, 3, size, size]."""
    first_latents: Tensor
    """Of the discriminator's update, [n, latent_size + num_classes].

    The conditions in both latents are those of the real images: a generated image is to show what the real one at its
    place does.
    """
    second_latents: Tensor
    """Of the generator's update."""
    noise: Tensor | None = None
    """From N(0, 1), in the shape of `pixels`, for the penalty; without it there is none."""
    augmentation: Tensor | None = None
    """The numbers for `augment`, [4, n, 7], of real and generated images in the discriminator's update, then in the
    generator's."""


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
    """The generator learns from the images that the discriminator has just learned from, and not from new ones.

    They are augmented anew: what it minimises is a mean over all augmentations, not over those just learned.
    """
    num_classes: int = 0
    """So many of the last columns of the latents are conditions."""
    r1_gamma: float = 0.0
    """Weight of `approximate_r1` in what the discriminator minimises; no figure contains it."""
    join: Callable[[Tensor, Tensor], Tensor] = join
    """Puts pixels and generated images into one batch; `gan.images.join`, or an equal that is faster."""

    def __call__(self, batch: Batch) -> StepMetrics:
        """Updates the discriminator with its latents, then the generator with its own, or with the same."""
        numbers = (None,) * 4 if batch.augmentation is None else batch.augmentation.unbind()
        self.generator.refresh()
        self.discriminator.refresh()
        with stage("draw"), torch.set_grad_enabled(self.reuse_fakes):
            fakes = self.generator(batch.first_latents)
        with stage("discriminator"):
            d_loss, d_lost, real_logits, fake_logits = self._update_discriminator(
                self._real(batch, numbers[0]), augment(fakes.detach(), numbers[1]), batch.first_latents, batch.noise
            )
        # Only now may the generator go through the discriminator: a second pass before the first one's backward
        # would lose the discriminator's averaged gradients without an error.
        with stage("generator"), self.discriminator.frozen():
            fakes = augment(fakes if self.reuse_fakes else self.generator(batch.second_latents), numbers[3])
            real = self._real(batch, numbers[2]) if self.loss.is_relative else None
            g_loss, g_lost = self._update_generator(fakes, real, batch.second_latents)
        if self.loss.is_relative:  # more real than the other image of its pair
            real_logits, fake_logits = real_logits - fake_logits, fake_logits - real_logits
        if self.loss.judges_probability:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        return StepMetrics(d_loss, g_loss, real_logits.mean(), fake_logits.mean(), d_lost + g_lost)

    def _real(self, batch: Batch, numbers: Tensor | None) -> Tensor:
        """Real images in [-1, 1], augmented; pixels as they are if there are no numbers, see `_judge`."""
        return batch.pixels if numbers is None else augment(self._scaled(batch.pixels), numbers)

    def _scaled(self, pixels: Tensor) -> Tensor:
        return to_signed_unit(pixels, self.precision.weights)

    def _update_discriminator(
        self, real_images: Tensor, fake_images: Tensor, latents: Tensor, noise: Tensor | None = None
    ) -> tuple[Tensor, ...]:
        take_power_step(self.discriminator.network)
        if noise is not None and real_images.dtype == torch.uint8:
            real_images = self._scaled(real_images)
        noisy_images = () if noise is None else (real_images + NOISE_STD * noise,)
        real_logits, *noisy_logits, fake_logits = self._judge(latents, real_images, *noisy_images, fake_images)
        loss = objective = self.loss.discriminator(real_logits, fake_logits)
        if noisy_logits:
            objective = loss + self.r1_gamma * approximate_r1(real_logits, noisy_logits[0])
        lost = self.discriminator.descend(objective * self.loss_weight)
        self.discriminator.refresh()
        return loss.detach(), lost, real_logits.detach(), fake_logits.detach()

    def _update_generator(
        self, fake_images: Tensor, real_images: Tensor | None, latents: Tensor
    ) -> tuple[Tensor, Tensor]:
        """The discriminator must be frozen; real images are given for a relative loss."""
        if real_images is not None:
            real_logits, fake_logits = self._judge(latents, real_images, fake_images)
        else:
            real_logits = fake_logits = self._full(self.discriminator(fake_images, *self._conditions(latents)))
        loss = self.loss.generator(real_logits, fake_logits)
        lost = self.generator.descend(loss * self.loss_weight)
        return loss.detach(), lost

    def _judge(self, latents: Tensor, *images: Tensor) -> list[Tensor]:
        """The discriminator's logits of real and generated images, or of more kinds, generated ones last.

        All go through it together, each kind with batch statistics of its own: the same as one after the other, in
        fewer calls. Real images may be pixels still, if there are just two kinds.
        """
        if images[0].dtype == torch.uint8:
            together = self.join(*images)
        else:
            together = torch.cat([kind.to(images[-1].dtype) for kind in images])
        with _statistics_of_parts(self.discriminator.network, len(images)):
            logits = self.discriminator(together, *self._conditions(latents, len(images))).chunk(len(images))
        return [self._full(kind) for kind in logits]

    def _conditions(self, latents: Tensor, kinds: int = 1) -> tuple[Tensor, ...]:
        """What the discriminator is told of so many kinds of images beside them: their conditions, or nothing."""
        return (latents[:, -self.num_classes :].repeat(kinds, 1),) if self.num_classes else ()

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
