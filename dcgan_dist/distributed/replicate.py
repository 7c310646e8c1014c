"""One network on many ranks: the same weights, gradients averaged over the global batch."""

from __future__ import annotations

import inspect
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dcgan_dist.distributed.world import World


def replicate(network: nn.Module, world: World, images_here: int, global_batch: int) -> nn.Module:
    """Wraps `network` so that backward leaves the gradient of the mean over the global batch on every rank.

    `images_here` is this rank's share of the global batch. With one rank it is the network itself.
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
    if any(share != images_here for share in world.gather_objects(images_here)):
        replica.register_comm_hook(images_here / global_batch, _weighted_sum)
    return replica


def _without_buffer_sync() -> dict[str, Any]:
    """Keeps DDP from sending buffers before every forward; torch 2.13 gave the switch a new name."""
    names = inspect.signature(DistributedDataParallel.__init__).parameters
    return {"forward_sync_buffers" if "forward_sync_buffers" in names else "broadcast_buffers": False}


def _weighted_sum(weight: float, bucket: dist.GradBucket) -> torch.futures.Future[Tensor]:
    """Averages over images where ranks carry different numbers of them; DDP's own mean is over ranks."""
    reduced = dist.all_reduce(bucket.buffer().mul_(weight), async_op=True)
    assert reduced is not None
    return reduced.get_future().then(lambda future: future.value()[0])


def copy_from_main(network: nn.Module, world: World, what: str = "all") -> None:
    """Gives every rank rank 0's parameters and buffers, or with `what` = "buffers" its buffers alone."""
    tensors = list(network.buffers()) if what == "buffers" else list(network.state_dict().values())
    with torch.no_grad():
        for tensor in tensors:
            world.broadcast(tensor)
