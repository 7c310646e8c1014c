"""How DCGAN is trained in the tutorials, written plainly: what everything here is measured against.

`Tutorial` follows the tutorial this project grew out of, loader included: Pillow and torchvision in the main process,
sigmoid and BCELoss in fp32, the discriminator's loss carried back through the generator too, losses read at each step.
`Examples` follows the DCGAN of pytorch/examples: a loader with workers, fakes that are used twice, two backward passes.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torch.profiler import record_function
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from benchmarks.waiting import Waiting

LATENT_SIZE = 100


def build_generator(channels: int = 64) -> nn.Sequential:
    """Latents [n, 100, 1, 1] to images [n, 3, 64, 64]."""
    sizes = [LATENT_SIZE, channels * 8, channels * 4, channels * 2, channels]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(sizes)):
        stride, padding = (1, 0) if place == 0 else (2, 1)
        layers += [nn.ConvTranspose2d(before, after, 4, stride, padding, bias=False)]
        layers += [nn.BatchNorm2d(after), nn.ReLU(True)]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())


def build_discriminator(channels: int = 64, input_norm: bool = True) -> nn.Sequential:
    """Images [n, 3, 64, 64] to probabilities [n, 1, 1, 1]; `input_norm`: batch norm after the first convolution too."""
    sizes = [3, channels, channels * 2, channels * 4, channels * 8]
    layers: list[nn.Module] = []
    for place, (before, after) in enumerate(itertools.pairwise(sizes)):
        layers += [nn.Conv2d(before, after, 4, 2, 1, bias=False)]
        layers += [nn.BatchNorm2d(after)] if place or input_norm else []
        layers += [nn.LeakyReLU(0.2, True)]
    return nn.Sequential(*layers, nn.Conv2d(channels * 8, 1, 4, 1, 0, bias=False), nn.Sigmoid())


def initialise(network: nn.Module) -> None:
    """The initial weights of both."""
    for layer in network.modules():
        if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(layer.weight, 0.0, 0.02)
        elif isinstance(layer, nn.BatchNorm2d):
            nn.init.normal_(layer.weight, 1.0, 0.02)
            nn.init.zeros_(layer.bias)


def backward(loss: Tensor) -> None:
    """Backward, named for the profiler."""
    with record_function("backward"):
        loss.backward()


def update(optimizer: torch.optim.Optimizer) -> None:
    """An optimizer's step, named for the profiler."""
    with record_function("optimizer"):
        optimizer.step()


class Photographs(Dataset[Tensor]):
    """A folder of JPEGs, each [3, 64, 64] in [-1, 1]."""

    def __init__(self, folder: Path) -> None:
        self.paths = sorted(folder.glob("*.jpg"))
        self.transform = transforms.Compose(
            [
                transforms.Resize(64),
                transforms.CenterCrop(64),
                transforms.ToTensor(),
                transforms.Normalize((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)),
            ]
        )

    def __len__(self) -> int:
        return len(self.paths)

    def __getitem__(self, index: int) -> Tensor:
        with Image.open(self.paths[index]) as image:
            return self.transform(image)  # type: ignore[return-value]


class Plain:
    """Networks, optimizers and loader of both ways."""

    workers = 0
    input_norm = True

    def __init__(self, jpegs: Path, batch: int, device: torch.device) -> None:
        self.device, self.batch = device, batch
        self.generator = build_generator().to(device)
        self.discriminator = build_discriminator(input_norm=self.input_norm).to(device)
        for network in (self.generator, self.discriminator):
            initialise(network)
        self.generator_optimizer = torch.optim.Adam(self.generator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        self.discriminator_optimizer = torch.optim.Adam(self.discriminator.parameters(), lr=0.0002, betas=(0.5, 0.999))
        self.loss = nn.BCELoss()
        self.loader = DataLoader(Photographs(jpegs), batch, shuffle=True, num_workers=self.workers, drop_last=True)
        self.waiting = Waiting()
        self.images = torch.rand(batch, 3, 64, 64, device=device) * 2 - 1

    def step(self) -> None:
        """One iteration on a batch that is there."""
        self.iterate(self.images)

    eager_step = step

    def open(self) -> None:
        """Nothing is made ready before the first epoch."""

    def epoch(self) -> Iterator[int]:
        """Every image once, from its file; after each step the number of its images."""
        for images in self.waiting.around(self.loader):
            self.iterate(images.to(self.device))
            yield len(images)

    def iterate(self, images: Tensor) -> tuple[float, float]:
        """One iteration on images [n, 3, 64, 64] in [-1, 1]; both losses."""
        raise NotImplementedError

    def latents(self, count: int) -> Tensor:
        """N(0, 1), [count, 100, 1, 1]."""
        return torch.randn(count, LATENT_SIZE, 1, 1, device=self.device)


class Tutorial(Plain):
    """The tutorial's loop."""

    def iterate(self, images: Tensor) -> tuple[float, float]:
        self.discriminator_optimizer.zero_grad()
        real = self.discriminator(images)
        real_loss = self.loss(real, torch.ones_like(real))
        fake = self.discriminator(self.generator(self.latents(len(images))))
        fake_loss = self.loss(fake, torch.zeros_like(fake))
        discriminator_loss = real_loss + fake_loss
        backward(discriminator_loss)
        update(self.discriminator_optimizer)

        self.generator_optimizer.zero_grad()
        probabilities = self.discriminator(self.generator(self.latents(len(images))))
        generator_loss = self.loss(probabilities, torch.ones_like(probabilities))
        backward(generator_loss)
        update(self.generator_optimizer)
        return generator_loss.item(), discriminator_loss.item()


class Examples(Plain):
    """The loop of pytorch/examples, with two loader workers, cuDNN's search and no batch norm on the input."""

    workers = 2
    input_norm = False

    def __init__(self, jpegs: Path, batch: int, device: torch.device) -> None:
        torch.backends.cudnn.benchmark = True
        super().__init__(jpegs, batch, device)

    def iterate(self, images: Tensor) -> tuple[float, float]:
        self.discriminator.zero_grad()
        probabilities = self.discriminator(images).view(-1)
        real_loss = self.loss(probabilities, torch.ones_like(probabilities))
        backward(real_loss)
        real_mean = probabilities.mean().item()
        fakes = self.generator(self.latents(len(images)))
        probabilities = self.discriminator(fakes.detach()).view(-1)
        fake_loss = self.loss(probabilities, torch.zeros_like(probabilities))
        backward(fake_loss)
        assert probabilities.mean().item() <= 1 >= real_mean
        update(self.discriminator_optimizer)

        self.generator.zero_grad()
        probabilities = self.discriminator(fakes).view(-1)
        generator_loss = self.loss(probabilities, torch.ones_like(probabilities))
        backward(generator_loss)
        assert probabilities.mean().item() <= 1
        update(self.generator_optimizer)
        return generator_loss.item(), (real_loss + fake_loss).item()
