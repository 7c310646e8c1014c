"""The layers that are put in for speed: each is the ordinary one, to the last digit in float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.fast.convolutions import FromImage, FromVector, ToImage, ToVector, _double, use_fast_convolutions
from dcgan_dist.gan.generator import Generator

torch.manual_seed(0)  # the layers' weights are the same in every run
ENDS: dict[type[nn.Module], tuple[nn.Conv2d | nn.ConvTranspose2d, int]] = {
    FromVector: (nn.ConvTranspose2d(10, 6, 4, bias=False), 1),
    ToVector: (nn.Conv2d(6, 2, 4, bias=False), 4),
    ToImage: (nn.ConvTranspose2d(64, 3, 4, 2, 1, bias=False), 8),
    FromImage: (nn.Conv2d(3, 64, 4, 2, 1, bias=False), 16),
}
"""By what they become: the layers at the ends of the networks, and the size of their input."""


def random(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """N(0, 1), always the same, channels last in memory as the networks have their maps."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64).to(dtype)
    return values.contiguous(memory_format=torch.channels_last)


def fast(layer: nn.Module) -> nn.Module:
    """The layer as it is after the swap."""
    network = nn.Sequential(copy.deepcopy(layer))
    use_fast_convolutions(network)
    return network[0]


def gradients(layer: nn.Module, images: Tensor, half: torch.dtype | None = None) -> tuple[Tensor, ...]:
    """Output, and gradients of input and weight."""
    layer.to(images.dtype).to(memory_format=torch.channels_last).zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", half, enabled=half is not None, cache_enabled=False):
        output = layer(images)
    output.backward(random(*output.shape).to(output.dtype))
    assert images.grad is not None and isinstance(layer.weight, Tensor) and layer.weight.grad is not None
    return output.detach(), images.grad, layer.weight.grad


@pytest.mark.parametrize("kind", ENDS, ids=lambda kind: kind.__name__)
def test_in_double_precision_a_fast_layer_is_the_ordinary_one(kind: type[nn.Module]) -> None:
    layer, size = ENDS[kind]
    images = random(4, layer.in_channels, size, size)
    faster = fast(layer)
    assert type(faster) is kind
    assert isinstance(faster, type(layer))
    assert list(faster.state_dict()) == list(layer.state_dict())
    ours, theirs = gradients(faster, images), gradients(copy.deepcopy(layer), images)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [ToImage, FromImage], ids=lambda kind: kind.__name__)
def test_in_half_precision_it_is_near_and_its_weight_learns_in_full_precision(kind: type[nn.Module]) -> None:
    layer, size = ENDS[kind]
    images = random(4, layer.in_channels, size, size, dtype=torch.float32)
    faster = fast(layer)
    ours = gradients(faster, images, half=torch.bfloat16)
    theirs = gradients(copy.deepcopy(layer), images)
    assert ours[0].dtype == torch.bfloat16
    assert ours[2].dtype == torch.float32
    assert isinstance(faster.weight, Tensor) and ours[2].stride() == faster.weight.stride()
    for one, other in zip(ours, theirs, strict=True):  # bf16 has eight bits, and sums may almost cancel
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.01 * float(other.abs().max()))


@pytest.mark.parametrize("colours", [1, 3, 4])
def test_blocks_of_four_pixels_are_the_transposed_convolution(colours: int) -> None:
    maps, weight = random(2, 6, 5, 5), random(6, colours, 4, 4)
    expected = torch.conv_transpose2d(maps, weight, stride=2, padding=1)
    torch.testing.assert_close(_double(maps, weight), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", [ToImage, FromImage], ids=lambda kind: kind.__name__)
def test_frozen_weights_get_no_gradient_and_let_it_through(kind: type[nn.Module]) -> None:
    layer, size = ENDS[kind]
    images = random(2, layer.in_channels, size, size, dtype=torch.float32)
    faster = fast(layer)
    _, expected, _ = gradients(faster, images, half=torch.bfloat16)
    faster.zero_grad()
    faster.requires_grad_(False)
    images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = faster(images)
    output.backward(random(*output.shape).to(output.dtype))
    assert faster.weight.grad is None
    assert images.grad is not None
    assert torch.equal(images.grad, expected)


def test_to_differentiate_twice_is_an_error_and_not_a_wrong_number() -> None:
    images = random(1, 3, 8, 8, dtype=torch.float32).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        total = fast(ENDS[FromImage][0]).float()(images).square().sum()
    (gradient,) = torch.autograd.grad(total, images, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_the_networks_ends_are_swapped_and_their_weights_stay_the_same_objects() -> None:
    for network, kinds in (
        (Generator(32, 10, 8), ["FromVector", "ConvTranspose2d", "ConvTranspose2d", "ToImage"]),
        (Discriminator(32, 8, True), ["FromImage", "Conv2d", "Conv2d", "ToVector"]),
    ):
        plain, before = copy.deepcopy(network).double(), dict(network.named_parameters())
        use_fast_convolutions(network)
        found = [
            type(layer).__name__ for layer in network.modules() if isinstance(layer, (nn.Conv2d, nn.ConvTranspose2d))
        ]
        assert found == kinds
        assert all(value is before[name] for name, value in network.named_parameters())
        assert list(network.state_dict()) == list(plain.state_dict())
        inputs = random(3, 3, 32, 32) if isinstance(network, Discriminator) else random(3, 10, 1, 1).flatten(1)
        torch.testing.assert_close(network.double()(inputs), plain(inputs), rtol=1e-9, atol=1e-12)
