"""Synchronised batch norm is batch norm over the batches of all ranks."""

from __future__ import annotations

import copy
import itertools

import torch
from torch import Tensor, nn

from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm
from dcgan_dist.distributed.world import World
from tests.distributed.ranks.common import CHANNELS


def shares(world: World, uneven: bool) -> list[int]:
    """Images on each rank: three, or one more than on the rank before, from one on."""
    return [rank + 1 if uneven else 3 for rank in range(world.size)]


def random_tensor(seed: int, *shape: int) -> Tensor:
    """The same on every rank."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def norm_layer(dtype: torch.dtype) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(CHANNELS, dtype=dtype)
    with torch.no_grad():
        layer.weight.copy_(random_tensor(1, CHANNELS))
        layer.bias.copy_(random_tensor(2, CHANNELS))
    return layer


def compare_with_whole_batch(
    world: World,
    uneven: bool,
    layout: torch.memory_format,
    input_dtype: torch.dtype,
    dtype: torch.dtype,
    tolerance: float,
) -> None:
    """Two training steps of both layers: outputs, all gradients and running statistics are to agree."""
    counts = shares(world, uneven)
    mine = slice(sum(counts[: world.rank]), sum(counts[: world.rank + 1]))
    whole, synchronised = norm_layer(dtype), SyncBatchNorm2d(norm_layer(dtype), world)
    pairs: list[tuple[str, Tensor, Tensor]] = []
    for step in range(2):
        values = (random_tensor(10 + step, sum(counts), CHANNELS, 4, 6) * 3 + 1).to(input_dtype)
        values = values.contiguous(memory_format=layout)
        gradient = random_tensor(20 + step, *values.shape).to(input_dtype)
        all_inputs, own_inputs = values.clone().requires_grad_(), values[mine].clone().requires_grad_()
        expected, output = whole(all_inputs), synchronised(own_inputs)
        expected.backward(gradient)
        output.backward(gradient[mine])
        assert all_inputs.grad is not None and own_inputs.grad is not None
        assert output.dtype == expected.dtype
        assert own_inputs.grad.dtype == input_dtype
        if layout == torch.channels_last:
            assert output.is_contiguous(memory_format=layout)
        pairs += [("output", expected[mine], output), ("input gradient", all_inputs.grad[mine], own_inputs.grad)]
    for name in ("weight", "bias"):
        one, other = getattr(whole, name).grad, getattr(synchronised, name).grad
        pairs.append((f"{name} gradient", one, world.sum(other)))
    pairs += [(name, value, dict(synchronised.named_buffers())[name]) for name, value in whole.named_buffers()]
    for name, one, other in pairs:
        close(one, other, tolerance, name)


def close(expected: Tensor, found: Tensor, tolerance: float, name: str) -> None:
    """Within `tolerance` of the largest expected value, or of one."""
    error = (expected.double() - found.double()).abs().max() / expected.double().abs().max().clamp(min=1)
    assert error <= tolerance, f"{name} is {error:.3g} off"


def sync_batch_norm_is_batch_norm_over_even_shares(world: World) -> None:
    compare_with_whole_batch(world, False, torch.contiguous_format, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_over_uneven_shares(world: World) -> None:
    compare_with_whole_batch(world, True, torch.contiguous_format, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_with_channels_last(world: World) -> None:
    for uneven in (False, True):
        compare_with_whole_batch(world, uneven, torch.channels_last, torch.float64, torch.float64, 1e-12)


def sync_batch_norm_is_batch_norm_in_single_precision(world: World) -> None:
    compare_with_whole_batch(world, True, torch.channels_last, torch.float32, torch.float32, 1e-5)


def sync_batch_norm_takes_half_precision_inputs(world: World) -> None:
    for layout in (torch.contiguous_format, torch.channels_last):
        compare_with_whole_batch(world, True, layout, torch.bfloat16, torch.float32, 2e-2)


def sync_batch_norm_keeps_precision_far_from_zero(world: World) -> None:
    """A mean a thousand times the deviation: sums of squares in single precision would lose everything."""
    values = random_tensor(30, 4 * world.size, CHANNELS, 4, 4) + 1000
    output = SyncBatchNorm2d(nn.BatchNorm2d(CHANNELS), world)(values.float()[4 * world.rank : 4 * world.rank + 4])
    expected = nn.BatchNorm2d(CHANNELS, dtype=torch.float64)(values)[4 * world.rank : 4 * world.rank + 4]
    close(expected, output, 1e-3, "output")


def sync_batch_norm_evaluates_like_batch_norm(world: World) -> None:
    layer = norm_layer(torch.float64)
    synchronised = SyncBatchNorm2d(layer, world).eval()
    values = random_tensor(31 + world.rank, 2, CHANNELS, 3, 3)
    assert torch.equal(synchronised(values), layer.eval()(values))
    assert list(synchronised.state_dict()) == list(layer.state_dict())


def sync_batch_norm_exchanges_everything_through_one_place(world: World) -> None:
    """Layers of any width: a CUDA graph, and NCCL's symmetric memory, hold on to the place of the first step."""
    widths = (CHANNELS, 3 * CHANNELS, 2)
    whole = nn.Sequential()
    for before, after in itertools.pairwise((CHANNELS, *widths)):
        whole.extend([nn.Conv2d(before, after, 1, bias=False), nn.BatchNorm2d(after), nn.Tanh()])
    for index, parameter in enumerate(whole.double().parameters()):
        parameter.data = random_tensor(40 + index, *parameter.shape)
    synchronised = copy.deepcopy(whole)
    synchronise_batch_norm(synchronised, world)
    exchanges = {id(one.exchange): one.exchange for one in synchronised.modules() if isinstance(one, SyncBatchNorm2d)}
    (exchange,) = exchanges.values()
    places: set[tuple[int, int]] = set()
    pairs: list[tuple[str, Tensor, Tensor]] = []
    for step in range(3):
        values = random_tensor(50 + step, 4 * world.size, CHANNELS, 3, 3)
        mine = slice(4 * world.rank, 4 * world.rank + 4)
        expected, output = whole(values), synchronised(values[mine])
        expected.square().sum().backward()
        output.square().sum().backward()
        own = exchange.room(values[0, 0])
        places.add((own.data_ptr(), exchange.gather(own).data_ptr()))
        pairs.append((f"output {step}", expected[mine], output))
    for (name, one), other in zip(whole.named_parameters(), synchronised.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        pairs.append((f"gradient of {name}", one.grad, world.sum(other.grad)))
    for name, one, other in pairs:
        close(one, other, 1e-11, name)
    assert len(places) == 1
