"""Batch norm over the batches of all ranks, on any device.

torch.nn.SyncBatchNorm refuses CPU tensors and makes the host wait once a layer; this one does neither. Keys of the
state dict are BatchNorm2d's, so a checkpoint does not know how many ranks wrote it.
"""

from __future__ import annotations

import itertools
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from dcgan_dist.distributed.kernels import kernels_run_on
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.fast import batch_norm_cpu, batch_norm_plain
from dcgan_dist.gan.fast.batch_norm_plain import Norm, Running


class SyncBatchNorm2d(nn.BatchNorm2d):
    """BatchNorm2d whose statistics are those of the whole batch, however it is divided over the ranks.

    With `parts` above one, that many equal parts of a batch, one behind the other, have statistics of their own, as if
    they had come one by one. In evaluation mode it is BatchNorm2d. Whatever `parts` is, one collective in the forward
    pass and one in the backward pass.
    """

    def __init__(
        self, layer: nn.BatchNorm2d, world: World, slope: float = 1.0, exchange: Exchange | None = None
    ) -> None:
        """`slope`: of the activation that is computed along, below zero: 0 for ReLU, 1 for none."""
        super().__init__(layer.num_features, layer.eps, layer.momentum, device="meta")
        self.exchange = exchange or Exchange(world, layer.num_features)
        self.parts = 1
        self.slope = slope
        # The same tensors, not copies: optimizers may hold them already.
        self.weight, self.bias = layer.weight, layer.bias
        self.running_mean, self.running_var = layer.running_mean, layer.running_var
        self.num_batches_tracked = layer.num_batches_tracked
        self.train(layer.training)

    def forward(self, input: Tensor) -> Tensor:
        """Normalises [n, channels, height, width]; every rank must call it, each with at least one image a part."""
        if not self.training:
            return self.activate(super().forward(input))
        assert self.running_mean is not None and self.running_var is not None and self.num_batches_tracked is not None
        running = Running(self.running_mean, self.running_var, self.num_batches_tracked, self.momentum)
        norm = Norm(self.weight, self.bias, self.eps, self.slope)
        return _Normalise.apply(input, self.weight, self.bias, norm, self.parts, running, self.exchange)

    def activate(self, maps: Tensor) -> Tensor:
        """Applies the activation that is fused into this layer."""
        return maps if self.slope == 1.0 else F.leaky_relu(maps, self.slope)


class _Normalise(torch.autograd.Function):
    """Ioffe and Szegedy (2015), algorithm 1, and its gradient, with the sums taken over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        input: Tensor,
        weight: Tensor,
        bias: Tensor,
        norm: Norm,
        parts: int,
        running: Running,
        exchange: Exchange,
    ) -> Tensor:
        input = _dense(input)
        using = _arithmetic_for(input)
        pieces = using.measure(input, parts, weight)
        if exchange.world.has_peers:
            pieces = exchange.gather(using.combine(pieces, out=exchange.room(pieces[0])))
        combined = using.combine(pieces, running)
        ctx.save_for_backward(input, weight, bias, combined)
        ctx.eps, ctx.slope, ctx.exchange, ctx.using = norm.eps, norm.slope, exchange, using
        return using.normalise(input, combined, norm)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        input, weight, bias, combined = ctx.saved_tensors
        norm = Norm(weight, bias, ctx.eps, ctx.slope)
        grad = grads[0].contiguous(memory_format=_layout(input))
        pieces = ctx.using.gradient_sums(grad, input, combined, norm)
        world, room = ctx.exchange.world, ctx.exchange.room(pieces[0])
        sums, (grad_bias, grad_weight) = ctx.using.add_up(pieces, out=room)
        grad_input = None
        if ctx.needs_input_grad[0]:
            grad_input = ctx.using.input_gradient(grad, input, combined, world.sum(sums), norm)
        return grad_input, grad_weight, grad_bias, None, None, None, None


class Exchange:
    """Memory in which ranks exchange what they know of their values: that of all layers of a network, used in turn."""

    def __init__(self, world: World, channels: int, symmetric: bool = False) -> None:
        """`channels`: of the widest layer. `symmetric`: in memory as `World.symmetric_memory` gives it."""
        self.world = world
        self._channels, self._symmetric = channels, symmetric
        self._own = self._everyones = torch.empty(0)

    def room(self, like: Tensor) -> Tensor:
        """A place in the shape and precision of `like`, [..., channels], for what this rank tells.

        The next call gives it away again.
        """
        if len(self._own) < like.numel() or self._own.dtype != like.dtype:
            most = like.numel() // like.shape[-1] * self._channels  # so every layer finds room in it
            with self.world.symmetric_memory(self._symmetric):
                self._own, self._everyones = like.new_empty(most), like.new_empty(self.world.size * most)
        return self._own[: like.numel()].view(like.shape)

    def gather(self, own: Tensor) -> Tensor:
        """What all ranks have at the place that `room` gave, [ranks, ...]. It holds until the next call."""
        everyones = self._everyones[: self.world.size * own.numel()]
        return self.world.gather(own, into=everyones.view(-1, *own.shape))


def synchronise_batch_norm(network: nn.Module, world: World, symmetric_memory: bool = False) -> None:
    """Replaces every BatchNorm2d inside `network` by one over all ranks; its parameters stay the same objects.

    Where a kernel computes the following activation too, as on a GPU, an identity takes the activation's place.
    """
    widths = [layer.num_features for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)]
    exchange = Exchange(world, max(widths, default=0), symmetric_memory)
    for parent in list(network.modules()):
        children = list(parent.named_children())
        for (name, child), (after, activation) in itertools.zip_longest(children, children[1:], fillvalue=("", None)):
            if type(child) is not nn.BatchNorm2d:
                continue
            slope = _slope(activation) if fuses_activation(child.weight) else None
            setattr(parent, name, SyncBatchNorm2d(child, world, 1.0 if slope is None else slope, exchange))
            if slope is not None:
                setattr(parent, after, nn.Identity())


def fuses_activation(weight: Tensor) -> bool:
    """Whether normalisation and activation are one kernel on the device of these weights."""
    return _arithmetic_for(weight) is not batch_norm_cpu


def _slope(activation: nn.Module | None) -> float | None:
    """The factor of values below zero; None if `activation` is neither ReLU nor leaky ReLU."""
    if isinstance(activation, nn.LeakyReLU):
        return activation.negative_slope
    return 0.0 if isinstance(activation, nn.ReLU) else None


def _layout(maps: Tensor) -> torch.memory_format:
    """Whether the channels of dense maps lie last in memory."""
    last = maps.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def _dense(maps: Tensor) -> Tensor:
    """Makes maps dense in memory: in their own layout if they have one, else channels last."""
    return maps if maps.is_contiguous() else maps.contiguous(memory_format=torch.channels_last)


class _Arithmetic(Protocol):
    """What a form of batch norm's arithmetic offers; `batch_norm_plain` says what each function is."""

    def measure(self, input: Tensor, parts: int, weight: Tensor) -> Tensor: ...

    def combine(self, pieces: Tensor, running: Running | None = None, out: Tensor | None = None) -> Tensor: ...

    def normalise(self, input: Tensor, combined: Tensor, norm: Norm) -> Tensor: ...

    def gradient_sums(self, grad: Tensor, input: Tensor, combined: Tensor, norm: Norm) -> Tensor: ...

    def add_up(self, pieces: Tensor, out: Tensor | None = None) -> tuple[Tensor, Tensor]: ...

    def input_gradient(self, grad: Tensor, input: Tensor, combined: Tensor, sums: Tensor, norm: Norm) -> Tensor: ...


def _arithmetic_for(input: Tensor) -> _Arithmetic:
    """Triton's kernels on a GPU, or in Triton's interpreter if TRITON_INTERPRET=1; on a CPU what is fast there."""
    if kernels_run_on(input.device):
        from dcgan_dist.gan.fast import batch_norm_kernels

        return batch_norm_kernels
    return batch_norm_plain if input.is_cuda else batch_norm_cpu
