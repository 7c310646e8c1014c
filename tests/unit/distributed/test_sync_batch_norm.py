"""Synchronised batch norm on a single rank; on several: tests/distributed."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d
from dcgan_dist.distributed.world import World

ALONE = World(0, 1, 0, 1, torch.device("cpu"))


def layer() -> nn.BatchNorm2d:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(3, dtype=torch.float64)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    return norm


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_its_gradient_is_that_of_finite_differences(layout: torch.memory_format) -> None:
    synchronised = SyncBatchNorm2d(layer(), ALONE)
    values = torch.randn(4, 3, 2, 3, dtype=torch.float64).contiguous(memory_format=layout).requires_grad_()

    def output(values: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return torch.func.functional_call(synchronised, {"weight": weight, "bias": bias}, (values,))

    weight, bias = (parameter.detach().clone().requires_grad_() for parameter in synchronised.parameters())
    assert torch.autograd.gradcheck(output, (values, weight, bias))


def test_no_gradient_is_made_for_an_input_that_wants_none() -> None:
    synchronised = SyncBatchNorm2d(layer(), ALONE)
    synchronised(torch.randn(4, 3, 2, 3, dtype=torch.float64)).sum().backward()
    assert synchronised.weight.grad is not None


def test_it_shares_the_tensors_of_the_layer_it_replaces() -> None:
    norm = layer()
    synchronised = SyncBatchNorm2d(norm, ALONE)
    synchronised(torch.randn(4, 3, 2, 3, dtype=torch.float64))
    assert synchronised.weight is norm.weight
    assert norm.num_batches_tracked is not None
    assert norm.num_batches_tracked.item() == 1
