"""The DCGAN tutorial's networks and training step, written plainly: what everything here is measured against."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn


def build_generator(latent_size: int = 100, channels: int = 64) -> nn.Sequential:
    """Latents [n, latent_size, 1, 1] to images [n, 3, 64, 64]."""
    sizes = [latent_size, channels * 8, channels * 4, channels * 2, channels]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(sizes)):
        stride, padding = (1, 0) if place == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())


def build_discriminator(channels: int = 64) -> nn.Sequential:
    """Images [n, 3, 64, 64] to probabilities [n, 1, 1, 1]."""
    sizes = [3, channels, channels * 2, channels * 4, channels * 8]
    layers: list[nn.Module] = []
    for before, after in itertools.pairwise(sizes):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False), nn.BatchNorm2d(after), nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(channels * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def initialise(network: nn.Module) -> None:
    """The tutorial's initial weights."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


class TutorialStep:
    """One iteration: sigmoid and BCELoss in fp32, the discriminator's loss carried back through the generator too."""

    def __init__(self) -> None:
        self.generator, self.discriminator = build_generator(), build_discriminator()
        for network in (self.generator, self.discriminator):
            initialise(network)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        self.loss = nn.BCELoss()

    def __call__(self, images: Tensor) -> tuple[float, float]:
        """Takes images [n, 3, 64, 64] in [-1, 1]; returns both losses."""
        self.discriminator_optimizer.zero_grad()
        real_scores = self.discriminator(images).squeeze()
        real_loss = self.loss(real_scores, torch.ones_like(real_scores))
        fakes = self.generator(torch.randn(len(images), 100, 1, 1))
        fake_scores = self.discriminator(fakes).squeeze()
        fake_loss = self.loss(fake_scores, torch.zeros_like(fake_scores))
        discriminator_loss = real_loss + fake_loss
        discriminator_loss.backward()
        self.discriminator_optimizer.step()

        self.generator_optimizer.zero_grad()
        scores = self.discriminator(self.generator(torch.randn(len(images), 100, 1, 1))).squeeze()
        generator_loss = self.loss(scores, torch.ones_like(scores))
        generator_loss.backward()
        self.generator_optimizer.step()
        return generator_loss.item(), discriminator_loss.item()
