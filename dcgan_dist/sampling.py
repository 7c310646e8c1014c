"""One latent's way to a picture: drawn from the seed, through the generator, onto a grid, into a PNG."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor, nn
from torchvision.utils import make_grid

from dcgan_dist.counter_random import normal
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.files import atomic_write
from dcgan_dist.gan.step import to_pixels


class FixedLatentSampler:
    """Draws the same latents again and again, so that one sees the generator learn. Each rank draws its share."""

    def __init__(self, seed: int, num_images: int, latent_size: int, image_size: int, world: World) -> None:
        self.world = world
        self.image_size = image_size
        self.counts = [share(num_images, rank, world.size)[1] for rank in range(world.size)]
        first, count = share(num_images, world.rank, world.size)
        self.latents = normal(seed, "fixed latents", first, count, latent_size, world.device)

    @torch.no_grad()
    def draw(self, generator: nn.Module) -> Tensor:
        """The images of all ranks, on every rank: uint8 [num_images, 3, size, size]. Changes nothing in `generator`."""
        was_training = generator.training
        generator.eval()  # batch norm by its running statistics: an image does not depend on its neighbours
        size, here = self.image_size, len(self.latents)
        pixels = torch.zeros(max(self.counts), 3, size, size, dtype=torch.uint8, device=self.world.device)
        if here:
            pixels[:here] = to_pixels(generator(self.latents.to(next(generator.parameters()).dtype)))
        generator.train(was_training)
        return torch.cat([part[:count] for part, count in zip(self.world.gather(pixels), self.counts, strict=True)])


def save_grid(pixels: Tensor, path: Path, columns: int | None = None) -> None:
    """Writes images, uint8 [n, 3, height, width], as one PNG, whole or not at all; by default about as wide as high."""
    columns = columns or math.ceil(math.sqrt(len(pixels)))
    grid = make_grid(pixels.cpu(), nrow=columns, padding=2, pad_value=255)  # [3, height, width]
    with atomic_write(path) as file:
        Image.fromarray(grid.permute(1, 2, 0).contiguous().numpy()).save(file, format="PNG")
