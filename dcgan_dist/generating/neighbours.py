"""Checks for memorised images: the training images nearest to drawn ones, and how near those are."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from dcgan_dist.data.loader import Data
from dcgan_dist.generating.features import discriminator_features
from dcgan_dist.generating.figures import Sheet
from dcgan_dist.generating.latents import LatentsAt
from dcgan_dist.generating.studio import Studio

SHOWN_ROWS, SHOWN_NEIGHBOURS = 10, 4
MEASURES = ("pixels", "features")


class Nearest(NamedTuple):
    """For each query its nearest training images, by both measures."""

    distances: Tensor
    """float64 [2, queries, neighbours], nearest first: root mean square of pixels (0 to 255), length in features."""
    ids: Tensor
    """int64 [2, queries, neighbours]: numbers of the images in the shards."""


def save_neighbours(studio: Studio, data: Data, latents: LatentsAt, num_images: int, out: Path) -> None:
    """Looks up `num_images` drawn images, prints how near they are to the training images, and saves a figure.

    The yardstick is how near as many training images are to their nearest others: memorised images would be nearer.
    """
    drawn = studio.all_drawn(latents, num_images)
    of_drawn = find_nearest(studio, data, drawn, SHOWN_NEIGHBOURS)
    count = min(num_images, data.manifest.samples)
    real = torch.cat([part.cpu() for part in studio.real(data, count, lambda pixels: pixels, "decoding")])
    of_real = find_nearest(studio, data, real, 1, first_id=0)
    studio.world.on_main(_print_distances, of_drawn, of_real, data.manifest.samples)
    studio.world.on_main(lambda: _draw_figure(studio, data, drawn[:SHOWN_ROWS], of_drawn).save(out))


def find_nearest(studio: Studio, data: Data, queries: Tensor, neighbours: int, first_id: int | None = None) -> Nearest:
    """The nearest of all training images to each query, uint8 [n, 3, size, size], by pixels and by features.

    `first_id`: the queries are the training images from this number on, and none is its own neighbour. Where training
    mirrored images, their mirror images count too. The same on every rank, whatever their number.
    """
    network, device = studio.trained.discriminator, studio.world.device
    by_pixels = queries.to(device).flatten(1).double()
    by_features = torch.cat([discriminator_features(network, part) for part in queries.to(device).split(64)]).double()

    def distances(pixels: Tensor) -> Tensor:  # [CHUNK, 3, size, size] to [CHUNK, 2, queries]
        variants = [pixels, pixels.flip(3)] if studio.trained.config.data.flip else [pixels]
        of_pixels = [_distances(variant.flatten(1).double(), by_pixels) for variant in variants]
        of_features = [
            _distances(discriminator_features(network, variant).double(), by_features) for variant in variants
        ]
        return torch.stack([torch.stack(found).amin(0) for found in (of_pixels, of_features)], dim=1)

    best = Nearest(torch.empty(2, len(queries), 0), torch.empty(2, len(queries), 0, dtype=torch.int64))
    position = 0
    for portion in studio.real(data, data.manifest.samples, distances, "comparing"):
        ids = torch.arange(position, position + len(portion))
        position += len(portion)
        found = portion.cpu().permute(1, 2, 0)  # [2, queries, n]
        if first_id is not None:
            itself = ids == torch.arange(first_id, first_id + len(queries))[:, None]
            found = found.masked_fill(itself, torch.inf)
        best = _keep_nearest(best, Nearest(found, ids.expand_as(found)), neighbours)
    scale = torch.tensor([by_pixels.shape[1] ** -0.5, 1.0])[:, None, None]
    return Nearest(best.distances * scale, best.ids)


def _distances(images: Tensor, queries: Tensor) -> Tensor:
    """Euclidean distances [images, queries] in float64; of pixels exact, since they are whole numbers."""
    squares = images.square().sum(1)[:, None] + queries.square().sum(1) - 2 * images @ queries.T
    return squares.clamp_min(0).sqrt()


def _keep_nearest(best: Nearest, found: Nearest, neighbours: int) -> Nearest:
    distances, ids = (torch.cat(pair, dim=2) for pair in zip(best, found, strict=True))
    order = distances.argsort(dim=2, stable=True)[:, :, :neighbours]
    return Nearest(distances.gather(2, order), ids.gather(2, order))


def _print_distances(of_drawn: Nearest, of_real: Nearest, num_training: int) -> None:
    for measure, drawn, real in zip(MEASURES, of_drawn.distances[:, :, 0], of_real.distances[:, :, 0], strict=True):
        closer = int((drawn < real.min()).sum())
        print(
            f"{measure}: {len(drawn)} drawn images are {drawn.median():.1f} (median) from the nearest of "
            f"{num_training} training ones, {len(real)} training images {real.median():.1f} from the nearest other; "
            f"{closer} drawn ones are nearer than any of those"
        )


def _draw_figure(studio: Studio, data: Data, drawn: Tensor, nearest: Nearest) -> Sheet:
    """Each row: a drawn image, then its nearest training images by pixels and by features."""
    ids = nearest.ids[:, : len(drawn)]
    found = next(iter(data.decode([ids.flatten().tolist()]))).permute(0, 3, 1, 2).unflatten(0, ids.shape)
    width = ids.shape[2]
    sheet = Sheet(2 * width + 1.5, len(drawn), studio.image_size)
    sheet.caption("drawn", 0, 1)
    for number, (measure, neighbours) in enumerate(zip(MEASURES, found, strict=True)):
        left = 1.25 + number * (width + 0.25)
        sheet.caption(f"nearest training images in {measure}", left, width)
        for row, images in enumerate(neighbours):
            sheet.place(drawn[row], 0, row)
            for column, image in enumerate(images):
                sheet.place(image, left + column, row)
    return sheet
