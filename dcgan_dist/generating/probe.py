"""A linear probe: reads from the discriminator's features whether an image shows an attribute."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

REGULARISATION = 0.1
MOST_ITERATIONS = 100


@dataclass(frozen=True)
class Probe:
    """A linear classifier on standardised features."""

    mean: Tensor
    scale: Tensor
    weights: Tensor
    bias: float

    def margins(self, features: Tensor) -> Tensor:
        """Features [n, features] to float32 [n]: above zero where the attribute shows, and further the surer."""
        return ((features - self.mean) / self.scale) @ self.weights + self.bias


def fit_probe(features: Tensor, shows: Tensor) -> Probe:
    """The L2-regularised L2-SVM of Radford et al. 2016, section 5.1, on features [n, features] and bool labels [n].

    Both classes weigh the same, however rare one is. Needs at least one example of each.
    """
    mean, scale = features.mean(0), features.std(0).clamp_min(1e-6)
    inputs = (features - mean) / scale
    signs = shows.float() * 2 - 1
    importance = torch.where(shows, 0.5 / shows.sum(), 0.5 / (~shows).sum())
    weights = torch.zeros(features.shape[1] + 1, requires_grad=True)  # the last is the bias
    search = torch.optim.LBFGS([weights], max_iter=MOST_ITERATIONS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        search.zero_grad()
        margins = inputs @ weights[:-1] + weights[-1]
        total = (importance * (1 - signs * margins).relu().square()).sum() + REGULARISATION * weights[
            :-1
        ].square().sum()
        total.backward()
        return total

    search.step(loss)
    weights = weights.detach()
    return Probe(mean, scale, weights[:-1], float(weights[-1]))


def balanced_accuracy(probe: Probe, features: Tensor, shows: Tensor) -> float:
    """Mean of the shares of images with and without the attribute that are told rightly; 0.5 is chance."""
    seen = probe.margins(features) > 0
    return float((seen[shows].float().mean() + (~seen[~shows]).float().mean()) / 2)
