"""One training step: the discriminator learns from real and drawn images, then the generator from its verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
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

    def split(self, parts: int) -> list[Batch]:
        """The batch in so many parts, one behind the other, whose sizes differ by one image at most."""
        if parts == 1:
            return [self]
        ends = [len(self.pixels) * part // parts for part in range(1, parts)]  # as images are shared out to ranks
        pixels, first, second = (rows.tensor_split(ends) for rows in self[:3])
        none = [None] * parts
        noise = none if self.noise is None else self.noise.tensor_split(ends)
        augmentation = none if self.augmentation is None else self.augmentation.tensor_split(ends, dim=1)
        return [Batch(*part) for part in zip(pixels, first, second, noise, augmentation, strict=True)]

    def numbers(self) -> tuple[Tensor | None, ...]:
        """Those of the four augmentations, one after the other."""
        return (None,) * 4 if self.augmentation is None else self.augmentation.unbind()


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
    accumulate: int = 1
    """Parts that a batch is worked through in, one after the other, before each update: it needs so much less memory.

    Batch norm's statistics are those of a part, as if each were on a rank of its own.
    """
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
        parts = batch.split(self.accumulate)
        shares = [len(part.pixels) / len(batch.pixels) for part in parts]
        keep = self.reuse_fakes and len(parts) == 1  # what several were computed from would take the memory of all
        with stage("draw"), torch.set_grad_enabled(keep):
            fakes = [self.generator(part.first_latents) for part in parts]
        with stage("discriminator"):
            take_power_step(self.discriminator.network)
            self.discriminator.begin()
            verdicts = [self._teach_discriminator(*given) for given in zip(parts, fakes, shares, strict=True)]
            d_lost = self.discriminator.descend()
        if not keep:
            fakes.clear()  # and frees their memory
        # Only now may the generator go through the discriminator: a second pass before the first one's backward
        # would lose the discriminator's averaged gradients without an error.
        with stage("generator"), self.discriminator.frozen():
            self.generator.begin()
            g_losses = [
                self._teach_generator(part, fakes[0] if keep else self._draw_again(part), share)
                for part, share in zip(parts, shares, strict=True)
            ]
            g_lost = self.generator.descend()
        d_losses, *logits = zip(*verdicts, strict=True)
        real_logits, fake_logits = (kind[0] if len(kind) == 1 else torch.cat(kind) for kind in logits)
        if self.loss.is_relative:  # more real than the other image of its pair
            real_logits, fake_logits = real_logits - fake_logits, fake_logits - real_logits
        if self.loss.judges_probability:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        d_loss, g_loss = _mean(d_losses, shares), _mean(g_losses, shares)
        return StepMetrics(d_loss, g_loss, real_logits.mean(), fake_logits.mean(), d_lost + g_lost)

    def _draw_again(self, part: Batch) -> Tensor:
        """The images that the generator learns from, where they are not those at hand."""
        return self.generator(part.first_latents if self.reuse_fakes else part.second_latents)

    def _real(self, part: Batch, numbers: Tensor | None) -> Tensor:
        """Real images in [-1, 1], augmented; pixels as they are if there are no numbers, see `_judge`."""
        return part.pixels if numbers is None else augment(self._scaled(part.pixels), numbers)

    def _scaled(self, pixels: Tensor) -> Tensor:
        return to_signed_unit(pixels, self.precision.weights)

    def _teach_discriminator(self, part: Batch, fakes: Tensor, share: float) -> tuple[Tensor, ...]:
        """Adds the gradients of a part, `share` of the batch; the loss and the logits of real and drawn images."""
        for_real, for_fakes, *_ = part.numbers()
        real, fakes = self._real(part, for_real), augment(fakes.detach(), for_fakes)
        if part.noise is not None and real.dtype == torch.uint8:
            real = self._scaled(real)
        noisy = () if part.noise is None else (real + NOISE_STD * part.noise,)
        real_logits, *noisy_logits, fake_logits = self._judge(part.first_latents, real, *noisy, fakes)
        loss = objective = self.loss.discriminator(real_logits, fake_logits)
        if noisy_logits:
            objective = loss + self.r1_gamma * approximate_r1(real_logits, noisy_logits[0])
        self.discriminator.add_gradients(objective * (self.loss_weight * share))
        return loss.detach(), real_logits.detach(), fake_logits.detach()

    def _teach_generator(self, part: Batch, fakes: Tensor, share: float) -> Tensor:
        """Adds the gradients of a part, `share` of the batch; the loss. The discriminator must be frozen."""
        *_, for_real, for_fakes = part.numbers()
        fakes = augment(fakes, for_fakes)
        if self.loss.is_relative:
            real_logits, fake_logits = self._judge(part.second_latents, self._real(part, for_real), fakes)
        else:
            real_logits = fake_logits = self._full(self.discriminator(fakes, *self._conditions(part.second_latents)))
        loss = self.loss.generator(real_logits, fake_logits)
        self.generator.add_gradients(loss * (self.loss_weight * share))
        return loss.detach()

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


def _mean(values: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    """The mean over a batch, of whose parts, such shares of it, these are the means."""
    if len(values) == 1:
        return values[0]
    return torch.stack([share * value for share, value in zip(shares, values, strict=True)]).sum()


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
