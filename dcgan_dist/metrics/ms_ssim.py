"""How alike two samples of a set are, on average: multi-scale structural similarity (Wang et al. 2003).

High where a generator draws the same few images again and again (Odena et al. 2017, section 4.2). It says nothing of
how good they are, so it is read beside the same figure of real images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dcgan_dist.distributed.workforce import CHUNK, Workforce
from dcgan_dist.metrics.image_sets import gathered

SIGMA = 1.5  # of the Gaussian window of 11 pixels
SMALLEST_SCALE = 16  # pixels; a window must fit in
_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the scales, from the finest: Wang et al. 2003, section 3.2


def scale_weights(image_size: int) -> tuple[float, ...]:
    """Exponents of the scales that images of this size allow, adding up to 1: two at 32 pixels, five from 256 on."""
    scales = sum(image_size >> halvings >= SMALLEST_SCALE for halvings in range(len(_WEIGHTS)))
    return tuple(weight / sum(_WEIGHTS[:scales]) for weight in _WEIGHTS[:scales])


def mean_similarity(images: Tensor, workforce: Workforce) -> float:
    """The mean over pairs (first and second image, third and fourth, ...) of uint8 [n, 3, size, size], n at least 2.

    The same on every rank; each takes a share of the pairs. 1 means that all images are the same.
    """
    pairs = len(images) // 2

    def compute(start: int) -> Tensor:
        pair = torch.arange(start, start + CHUNK, device=images.device).clamp_max(pairs - 1)
        return _similarities(images[2 * pair].float(), images[2 * pair + 1].float())

    return float(gathered(workforce, pairs, workforce.chunk_starts(pairs), compute, lambda done: None).mean())


def _similarities(first: Tensor, second: Tensor) -> Tensor:
    """Similarities of pairs, float64 [n]; images float32 [n, 3, size, size], 0 to 255."""
    from torchmetrics.functional.image import multiscale_structural_similarity_index_measure as ms_ssim

    weights = scale_weights(first.shape[-1])
    return ms_ssim(first, second, sigma=SIGMA, data_range=255.0, betas=weights, reduction="none").double()
