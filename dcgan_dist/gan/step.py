"""One training step: the discriminator learns from real and drawn images, then the generator from its verdict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import get_total_norm
from torch.profiler import record_function

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

    The optimizers must be fused ones, as `torch.optim.Adam(..., fused=True)`: only those can leave out an update on the
    device. The discriminator's batch norm layers must know `parts`, as those of `sync_batch_norm` do.
    """

    generator: nn.Module
    discriminator: nn.Module
    generator_optimizer: torch.optim.Optimizer
    discriminator_optimizer: torch.optim.Optimizer
    generator_scaler: torch.amp.GradScaler
    discriminator_scaler: torch.amp.GradScaler
    precision: Precision
    loss_weight: float = 1.0
    """Images of this batch over those of an average one, where batches that are averaged differ in size."""
    average_gradients: Callable[[nn.Module], None] | None = None
    """Called with a network between its backward pass and its update; None if the gradients are ready by then."""
    loss: Loss = BCE
    reuse_fakes: bool = False
    """The generator learns from the images that the discriminator has just learned from, and not from new ones."""
    num_classes: int = 0
    """So many of the last columns of the latents are conditions."""

    def __call__(self, pixels: Tensor, first_latents: Tensor, second_latents: Tensor) -> StepMetrics:
        """Updates the discriminator with `first_latents`, then the generator with `second_latents`, or with the same.

        pixels: uint8 [n, 3, size, size]; both latents: [n, latent_size + num_classes]. The conditions in both are those
        of the real images: a generated image is to show what the real one at its place does.
        """
        real_images = to_signed_unit(pixels, self.precision.weights)
        with _stage("draw"), self.precision.autocast(), torch.set_grad_enabled(self.reuse_fakes):
            fake_images = self.generator(first_latents)
        with _stage("discriminator"):
            d_loss, d_lost, real_logits, fake_logits = self._update_discriminator(
                real_images, fake_images.detach(), first_latents
            )
        # Only now may the generator go through the discriminator: a second pass before the first one's backward
        # would lose the discriminator's averaged gradients without an error.
        with _stage("generator"):
            g_loss, g_lost = self._update_generator(second_latents, fake_images, real_images)
        if self.loss.is_relative:  # more real than the other image of its pair
            real_logits, fake_logits = real_logits - fake_logits, fake_logits - real_logits
        if self.loss.judges_probability:
            real_logits, fake_logits = real_logits.sigmoid(), fake_logits.sigmoid()
        return StepMetrics(d_loss, g_loss, real_logits.mean(), fake_logits.mean(), d_lost + g_lost)

    def _update_discriminator(self, real_images: Tensor, fake_images: Tensor, latents: Tensor) -> tuple[Tensor, ...]:
        real_logits, fake_logits = self._judge(real_images, fake_images, latents)
        loss = self.loss.discriminator(real_logits, fake_logits)
        lost = self._descend(loss, self.discriminator, self.discriminator_optimizer, self.discriminator_scaler)
        return loss.detach(), lost, real_logits.detach(), fake_logits.detach()

    def _update_generator(self, latents: Tensor, fake_images: Tensor, real_images: Tensor) -> tuple[Tensor, Tensor]:
        with _frozen(self.discriminator), self.precision.autocast():
            images = fake_images if self.reuse_fakes else self.generator(latents)
            if self.loss.is_relative:
                real_logits, fake_logits = self._judge(real_images, images, latents)
            else:
                real_logits = fake_logits = self._full(self.discriminator(images, *self._conditions(latents)))
        loss = self.loss.generator(real_logits, fake_logits)
        lost = self._descend(loss, self.generator, self.generator_optimizer, self.generator_scaler)
        return loss.detach(), lost

    def _judge(self, real_images: Tensor, fake_images: Tensor, latents: Tensor) -> tuple[Tensor, Tensor]:
        """The discriminator's logits of real and generated images.

        Both go through it together, each half with batch statistics of its own: the same as one after the other, in
        half the calls.
        """
        both = torch.cat([real_images.to(fake_images.dtype), fake_images])
        with _statistics_of_parts(self.discriminator, 2), self.precision.autocast():
            real_logits, fake_logits = self.discriminator(both, *self._conditions(latents, latents)).chunk(2)
        return self._full(real_logits), self._full(fake_logits)

    def _conditions(self, *latents: Tensor) -> tuple[Tensor, ...]:
        """What the discriminator is told of images beside them: their conditions, or nothing."""
        return (torch.cat(latents)[:, -self.num_classes :],) if self.num_classes else ()

    def _descend(
        self, loss: Tensor, network: nn.Module, optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler
    ) -> Tensor:
        """One update, unless a gradient is not finite: then weights and Adam's state stay; 1 is returned instead of 0.

        All of it happens on the device, so the host need not wait. The fp16 scaler does the same by itself; there an
        infinite gradient only means that its scale was too large, and does not count.
        """
        # Gradients that are averaged elsewhere may lie where the averaging wants them, and then have to stay there.
        optimizer.zero_grad(set_to_none=self.average_gradients is None)
        with _stage("backward"):
            scaler.scale(loss * self.loss_weight).backward()
        if self.average_gradients is not None:
            with _stage("average gradients"):
                self.average_gradients(network)
        with _stage("optimizer"):
            return _update(optimizer, scaler)

    def _full(self, logits: Tensor) -> Tensor:
        return logits.to(self.precision.weights)


def to_signed_unit(pixels: Tensor, dtype: torch.dtype) -> Tensor:
    """uint8 pixels 0..255 become numbers in [-1, 1], the range of the generator's tanh."""
    return pixels.to(dtype).mul_(2 / 255).sub_(1)


def to_pixels(images: Tensor) -> Tensor:
    """Images in [-1, 1] become uint8 pixels 0..255, rounded; the inverse of `to_signed_unit`."""
    return images.float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)


def _update(optimizer: torch.optim.Optimizer, scaler: torch.amp.GradScaler) -> Tensor:
    """Lets Adam take its step if all gradients are finite; a scalar on the device, 1 if they are not."""
    if scaler.is_enabled():
        scaler.step(optimizer)
        scaler.update()
        return torch.zeros((), device=optimizer.param_groups[0]["params"][0].device)
    gradients = [weight.grad for group in optimizer.param_groups for weight in group["params"]]
    non_finite = 1 - get_total_norm(gradients).isfinite().float()
    optimizer.found_inf = non_finite  # type: ignore[attr-defined]  # fused Adam reads it, as it does the scaler's
    optimizer.step()
    return non_finite


@contextlib.contextmanager
def _stage(name: str) -> Iterator[None]:
    """Names what happens in the block, for torch's profiler and on a GPU for NVIDIA's."""
    with record_function(name):
        if not torch.cuda.is_available():
            yield
            return
        torch.cuda.nvtx.range_push(name)
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()


@contextlib.contextmanager
def _frozen(network: nn.Module) -> Iterator[None]:
    """Lets gradients pass through `network` without reaching its weights."""
    network.requires_grad_(False)
    try:
        yield
    finally:
        network.requires_grad_(True)


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
