"""The mean of all ranks' gradients in one collective a network, without DistributedDataParallel."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from dcgan_dist.distributed.world import World


class GradientAverage:
    """Lays all gradients of a network into one flat tensor, where backward adds to them and one sum reaches them all.

    StyleGAN 2 and 3 average in this way. Nothing runs inside backward, so a CUDA graph can record all of it.
    """

    def __init__(self, networks: Iterable[nn.Module], world: World) -> None:
        self.world = world
        self.flat = {network: _lay_out(network) for network in networks}

    def __call__(self, network: nn.Module) -> None:
        """Leaves in the gradients of `network` their mean over the ranks; all of them must call it."""
        self.world.sum(self.flat[network].div_(self.world.size))


def _lay_out(network: nn.Module) -> Tensor:
    """Makes each gradient a view of one tensor [parameters], in its weight's memory layout."""
    weights = list(network.parameters())
    flat = torch.zeros(sum(weight.numel() for weight in weights), dtype=weights[0].dtype, device=weights[0].device)
    for weight, part in zip(weights, flat.split([weight.numel() for weight in weights]), strict=True):
        weight.grad = part.as_strided(weight.shape, weight.stride(), part.storage_offset())
    return flat
