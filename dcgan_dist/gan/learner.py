"""A network that learns: the weights it computes with, their gradients, and the update that Adam makes of them."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.profiler import record_function

from dcgan_dist.gan.precision import Precision


@dataclass
class Learner:
    """One of the two networks with everything that its update needs.

    The optimizer must be a fused one, as `torch.optim.Adam(..., fused=True)`: only those can leave out an update on the
    device.
    """

    network: nn.Module
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    precision: Precision
    average_gradients: Callable[[Tensor], Tensor] | None = None
    """Replaces all gradients, one tensor [parameters], by their mean over the ranks; None if backward has done it."""
    copies: dict[str, Tensor] = field(default_factory=dict)
    """Weights in half precision that the network computes with, by the names of those they are copies of.

    They must be equal to them at first; from then on `descend` sees to it.
    """

    def __post_init__(self) -> None:
        weights: dict[str, Tensor] = dict(self.network.named_parameters())
        self._masters = [weights[name] for name in self.copies]
        others = [weight for name, weight in weights.items() if name not in self.copies]
        self.leaves = [*self.copies.values(), *others]  # what backward leaves gradients at
        self._weights = [*self._masters, *others]
        self._flat, self._views = _lay_out(self._weights)
        self._has_gradients = False

    def __call__(self, *inputs: Tensor) -> Tensor:
        """The network's outputs, with convolutions in half precision where that is asked for."""
        with self.precision.autocast():
            return functional_call(self.network, self.copies, inputs) if self.copies else self.network(*inputs)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        """Lets gradients pass through the network without reaching its weights."""
        for leaf in self.leaves:
            leaf.requires_grad_(False)
        try:
            yield
        finally:
            for leaf in self.leaves:
                leaf.requires_grad_(True)

    def begin(self) -> None:
        """Begins an update anew: forgets gradients of one that did not come to its end."""
        self._has_gradients = False

    def add_gradients(self, loss: Tensor) -> None:
        """Adds the gradients of `loss`, a scalar, to those since `begin`."""
        for leaf in self.leaves:
            leaf.grad = None
        with stage("backward"):
            self.scaler.scale(loss).backward()
        with stage("average gradients"):
            self._gather_gradients()

    def descend(self) -> Tensor:
        """One update, unless a gradient is not finite: then weights and Adam's state stay; 1 is returned instead of 0.

        All of it happens on the device, so the host need not wait. The fp16 scaler does the same by itself; there an
        infinite gradient only means that its scale was too large, and does not count.
        """
        with stage("average gradients"):
            if self.average_gradients is not None:
                self.average_gradients(self._flat)
        with stage("optimizer"):
            left_out = self._update()
            if self.copies:
                with torch.no_grad():
                    torch._foreach_copy_(list(self.copies.values()), self._masters)
        return left_out

    def _gather_gradients(self) -> None:
        """Brings all gradients into one tensor, in the precision of the weights, where they add up."""
        gradients = [leaf.grad for leaf in self.leaves if leaf.grad is not None]  # that is, of all
        gather = torch._foreach_add_ if self._has_gradients else torch._foreach_copy_
        for first, last in ((0, len(self.copies)), (len(self.copies), len(gradients))):  # one precision at a time
            if last > first:
                gather(self._views[first:last], gradients[first:last])
        self._has_gradients = True
        for leaf in self.leaves:
            leaf.grad = None
        for weight, view in zip(self._weights, self._views, strict=True):
            weight.grad = view

    def _update(self) -> Tensor:
        """Lets Adam take its step if all gradients are finite; a scalar on the device, 1 if they are not."""
        if self.scaler.is_enabled():
            self.scaler.step(self.optimizer)
            self.scaler.update()
            return torch.zeros((), device=self._flat.device)
        # 0 times infinity is not a number, and differs from 0; `isfinite` would be five operators.
        non_finite = (0 * torch.linalg.vector_norm(self._flat) != 0).float()
        self.optimizer.found_inf = non_finite  # type: ignore[attr-defined]  # fused Adam reads it, as it does the scaler's
        self.optimizer.step()
        return non_finite


def half_copies(network: nn.Module, precision: Precision) -> dict[str, Tensor]:
    """Copies of the convolutions' weights in half precision, by name; none if the networks compute in full precision.

    Autocast would copy each weight at each use, which on a GPU costs a launch, and the gradient another.
    """
    if precision.half is None:
        return {}
    with torch.no_grad():
        return {
            f"{name}.weight": layer.weight.to(precision.half, copy=True).requires_grad_()
            for name, layer in network.named_modules()
            if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))  # not those that divide their weight first
        }


def _lay_out(weights: list[Tensor]) -> tuple[Tensor, list[Tensor]]:
    """One tensor [parameters] for all gradients, and for each weight the part of it, in the weight's memory layout."""
    sizes = [weight.numel() for weight in weights]
    flat = torch.zeros(sum(sizes), dtype=weights[0].dtype, device=weights[0].device)
    parts = zip(weights, flat.split(sizes), strict=True)
    return flat, [part.as_strided(weight.shape, weight.stride(), part.storage_offset()) for weight, part in parts]


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """Names what happens in the block, for torch's profiler and on a GPU for NVIDIA's."""
    with record_function(name):
        if not torch.cuda.is_available():
            yield
            return
        torch.cuda.nvtx.range_push(name)
        try:
            yield
        finally:
            torch.cuda.nvtx.range_pop()
