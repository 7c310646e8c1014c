"""Winograd's nine products are the convolution with 16, its transposed one, and the gradient of its weight."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dcgan_dist.gan import winograd

SIZES = [(1, 3, 2, 4), (2, 5, 7, 8), (winograd.IMAGES_AT_ONCE + 1, 2, 3, 12)]  # n, c, d and the large map's size


def random(seed: int, *shape: int) -> Tensor:
    """N(0, 1) in float64, channels last in memory."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize(("n", "c", "d", "size"), SIZES)
def test_large_maps_become_small_ones(n: int, c: int, d: int, size: int) -> None:
    large, weight = random(0, n, d, size, size), random(1, c, d, 4, 4)
    products = winograd.from_large(large) @ winograd.from_weight(weight, torch.float64).mT
    expected = torch.conv2d(large, weight, stride=2, padding=1)
    torch.testing.assert_close(winograd.to_small(products, n, size // 2), expected)


@pytest.mark.parametrize(("n", "c", "d", "size"), SIZES)
def test_small_maps_become_large_ones(n: int, c: int, d: int, size: int) -> None:
    small, weight = random(0, n, c, size // 2, size // 2), random(1, c, d, 4, 4)
    products = winograd.from_small(small) @ winograd.from_weight(weight, torch.float64)
    expected = torch.conv_transpose2d(small, weight, stride=2, padding=1)
    torch.testing.assert_close(winograd.to_large(products, n, size), expected)


@pytest.mark.parametrize(("n", "c", "d", "size"), SIZES)
def test_both_maps_give_the_weight_s_gradient(n: int, c: int, d: int, size: int) -> None:
    large, small = random(0, n, d, size, size), random(1, n, c, size // 2, size // 2)
    weight = torch.zeros(c, d, 4, 4, dtype=torch.float64, requires_grad=True)
    (torch.conv2d(large, weight, stride=2, padding=1) * small).sum().backward()
    products = winograd.from_small(small).mT @ winograd.from_large(large)
    torch.testing.assert_close(winograd.to_weight(products, torch.float64), weight.grad)


def relative_error(value: Tensor, expected: Tensor) -> float:
    """In standard deviations."""
    return float((value.double() - expected).std() / expected.std())


def test_in_bf16_errors_are_below_three_times_a_convolution_s_and_below_a_percent() -> None:
    n, channels, size, bf16 = 8, 128, 16, torch.bfloat16
    large, small = random(0, n, channels, size, size), random(1, n, channels, size // 2, size // 2)
    weight = random(2, channels, channels, 4, 4)
    of_weight = winograd.from_weight(weight, bf16)
    down = winograd.to_small(winograd.from_large(large.to(bf16)) @ of_weight.mT, n, size // 2)
    up = winograd.to_large(winograd.from_small(small.to(bf16)) @ of_weight, n, size)
    for convolve, maps, ours in ((torch.conv2d, large, down), (torch.conv_transpose2d, small, up)):
        exact = convolve(maps, weight, stride=2, padding=1)
        direct = convolve(maps.to(bf16), weight.to(bf16), stride=2, padding=1)
        assert relative_error(ours, exact) < min(3 * relative_error(direct, exact), 0.01)
