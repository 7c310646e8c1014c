"""The halving and the doubling convolution: on a CPU in half precision their weights learn by another way."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.gan.convolution import Doubling, Halving, _weight_gradient

LAYERS = (Halving(128, 256), Doubling(256, 128))


def gradients(layer: nn.Module, plain: nn.Module | None, images: Tensor) -> tuple[Tensor, ...]:
    """Output, and gradients of input and weight, in bf16; by `plain` with the layer's weights if it is given."""
    used = plain or layer
    used.load_state_dict(layer.state_dict())
    used.zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, cache_enabled=False):
        output = used(images)
    output.backward(torch.linspace(-1, 1, output.numel(), dtype=output.dtype).view_as(output))
    assert images.grad is not None and isinstance(used.weight, Tensor) and used.weight.grad is not None
    return output.detach(), images.grad, used.weight.grad


@pytest.mark.parametrize("layer", LAYERS, ids=["halving", "doubling"])
def test_in_half_precision_they_are_the_ordinary_convolutions(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.ConvTranspose2d
    plain = kind(layer.in_channels, layer.out_channels, 4, 2, 1, bias=False)
    images = torch.randn(4, layer.in_channels, 8, 8, generator=torch.Generator().manual_seed(0))
    ours, theirs = (gradients(layer, each, images) for each in (None, plain))
    assert torch.equal(ours[0], theirs[0])
    for one, other in zip(ours[1:], theirs[1:], strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=0.02, atol=0.005 * float(other.abs().max()))


def test_the_weights_gradient_is_that_of_the_convolution() -> None:
    large, small = (torch.randn(2, channels, size, size).double() for channels, size in ((3, 8), (5, 4)))
    weight = torch.zeros(5, 3, 4, 4, dtype=torch.float64, requires_grad=True)
    (torch.conv2d(large, weight, stride=2, padding=1) * small).sum().backward()
    torch.testing.assert_close(_weight_gradient(large, small), weight.grad)


def test_narrow_frozen_and_full_precision_layers_take_torch_s_own_way() -> None:
    images = torch.randn(2, 128, 8, 8, requires_grad=True)
    frozen = Halving(128, 256).requires_grad_(False)
    assert "Unfolded" not in type(LAYERS[0](images).grad_fn).__name__
    with torch.autocast("cpu", torch.bfloat16):
        assert "Unfolded" in type(LAYERS[0](images).grad_fn).__name__
        assert "Unfolded" not in type(frozen(images).grad_fn).__name__
        assert "Unfolded" not in type(Halving(128, 64)(images).grad_fn).__name__
