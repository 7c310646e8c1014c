"""One network on many ranks: the same weights, gradients averaged over the global batch."""

import inspect
from dataclasses import dataclass
from typing import Any

# No `from __future__ import annotations` here: DDP compares the annotations of its hook with types, not with text.
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dcgan_dist.distributed.world import World


def replicate(network: nn.Module, world: World) -> nn.Module:
    """Wraps `network` so that backward leaves the mean of all ranks' gradients on every rank.

    With one rank it is the network itself. Keep what is returned as long as `network` learns: once it is gone, backward
    leaves each rank its own gradients, without an error.
    """
    if world.size == 1:
        return network
    size_mb = sum(parameter.numel() * parameter.element_size() for parameter in network.parameters()) / 2**20
    replica = DistributedDataParallel(
        network,
        device_ids=[world.device] if world.device.type == "cuda" else None,
        bucket_cap_mb=size_mb + 1,  # one bucket, hence one collective a backward and one order of summation
        **_without_buffer_sync(),  # batch norm's statistics are equal already, or meant to differ
    )
    order = {id(parameter): place for place, parameter in enumerate(network.parameters())}
    replica.register_comm_hook(_Averaging(order, world.size), _average)
    return replica


def _without_buffer_sync() -> dict[str, Any]:
    """Keeps DDP from sending buffers before every forward; torch 2.13 gave the switch a new name."""
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}


@dataclass(frozen=True)
class _Averaging:
    """What the averaging of gradients needs to know."""

    order: dict[int, int]
    """Place of each parameter, by its identity."""
    ranks: int


def _average(averaging: _Averaging, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """The mean over ranks, summed up in an order that never changes.

    DDP lays gradients out anew after a process's first step, and a ring of ranks adds up by place: a resumed run would
    differ from an undisturbed one in the last bit.
    """
    pairs = zip(bucket.parameters(), bucket.gradients(), strict=True)
    gradients = [gradient for _, gradient in sorted(pairs, key=lambda pair: averaging.order[id(pair[0])])]
    flat = torch.cat([gradient.flatten() for gradient in gradients]).div_(averaging.ranks)
    reduced = dist.all_reduce(flat, async_op=True)
    assert reduced is not None

    def put_back(future: torch.futures.Future[list[Tensor]]) -> Tensor:
        parts = future.value()[0].split([gradient.numel() for gradient in gradients])
        for part, gradient in zip(parts, gradients, strict=True):
            gradient.copy_(part.view_as(gradient))
        return bucket.buffer()

    return reduced.get_future().then(put_back)


def copy_from_main(network: nn.Module, world: World, what: str = "all") -> None:
    """Gives every rank rank 0's parameters and buffers, or with `what` = "buffers" its buffers alone."""
    tensors = list(network.buffers()) if what == "buffers" else list(network.state_dict().values())
    with torch.no_grad():
        for tensor in tensors:
            world.broadcast(tensor)


def average(flat: Tensor, world: World) -> Tensor:
    """Replaces all gradients of a network, one tensor [parameters], by their mean over the ranks; all must call it.

    StyleGAN 2 and 3 average in this way. Nothing runs inside backward, so a CUDA graph can record all of it.
    """
    return world.sum(flat.div_(world.size))
