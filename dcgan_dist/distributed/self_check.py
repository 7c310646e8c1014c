"""Checks before the first step: what must be equal on all ranks, and what must differ."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from dcgan_dist.base.errors import RunFailed
from dcgan_dist.distributed.world import World


def checksum(network: nn.Module) -> str:
    """Returns a checksum of all parameters and buffers: it changes if one bit does."""
    total = torch.zeros((), dtype=torch.int64, device=next(network.parameters()).device)
    for index, parameter in enumerate(network.parameters()):
        bits = parameter.detach().contiguous().flatten().view(torch.int32).to(torch.int64)
        places = torch.arange(len(bits), device=bits.device) % 65521 + 1 + index
        total += (bits * places).sum()
    return f"{int(total.item()):016x}"


def assert_equal_on_all_ranks(world: World, values: dict[str, Any]) -> None:
    """Raises RunFailed naming what differs and which ranks hold the odd value."""
    everyone = world.gather_objects(values)
    for what in values:
        seen = [other[what] for other in everyone]
        odd = [rank for rank, value in enumerate(seen) if value != seen[0]]
        if odd:
            raise RunFailed(f"{what} differ between ranks: rank 0 has {seen[0]}, rank {odd[0]} has {seen[odd[0]]}")


def assert_disjoint(world: World, what: str, values: list[Any]) -> None:
    """Raises RunFailed naming two ranks that hold one of the same `values`."""
    owner: dict[Any, int] = {}
    for rank, theirs in enumerate(world.gather_objects(values)):
        for value in theirs:
            if owner.setdefault(value, rank) != rank:
                raise RunFailed(f"{what} must differ between ranks: ranks {owner[value]} and {rank} hold the same")
