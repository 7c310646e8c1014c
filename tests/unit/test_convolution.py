"""The convolutions of both networks: on a CPU in half precision they are computed, and learn, in other ways."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.gan.convolution import Doubling, FromVector, Halving, ToVector, _double

# From and to colours; narrow; wide on maps of whole blocks and not.
LAYERS = (
    *(Halving(3, 64), Doubling(64, 3), Halving(16, 32), Doubling(128, 64)),
    *(Halving(128, 256), Doubling(256, 128), Halving(128, 130), Doubling(130, 128)),
)
SIZES = (16, 8, 8, 12, 8, 4, 6, 3)


def random(*shape: int) -> Tensor:
    """N(0, 1), always the same, channels last in memory as the networks have their maps."""
    values = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    return values.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else values


def gradients(layer: nn.Module, weights: nn.Module, images: Tensor, autocast: bool) -> tuple[Tensor, ...]:
    """Output, and gradients of input and weight."""
    layer.load_state_dict(weights.state_dict())
    layer.to(memory_format=torch.channels_last).zero_grad()
    images = images.clone().requires_grad_()
    with torch.autocast("cpu", torch.bfloat16, enabled=autocast, cache_enabled=False):
        output = layer(images)
    output.backward(random(*output.shape).to(output.dtype))
    assert images.grad is not None and isinstance(layer.weight, Tensor) and layer.weight.grad is not None
    return output.detach(), images.grad, layer.weight.grad


def plain(layer: nn.Conv2d | nn.ConvTranspose2d) -> nn.Module:
    """torch's own layer of the same shape."""
    kind = nn.Conv2d if isinstance(layer, nn.Conv2d) else nn.ConvTranspose2d
    return kind(layer.in_channels, layer.out_channels, 4, layer.stride, layer.padding, bias=False)  # type: ignore[arg-type]


@pytest.mark.parametrize(("layer", "size"), list(zip(LAYERS, SIZES, strict=True)), ids=str)
def test_in_half_precision_they_are_the_ordinary_convolutions(layer: nn.Conv2d | nn.ConvTranspose2d, size: int) -> None:
    images = random(4, layer.in_channels, size, size)
    for one, other in zip(
        gradients(layer, layer, images, autocast=True),
        gradients(plain(layer), layer, images, autocast=False),
        strict=True,
    ):
        # bf16 has eight bits; sums of many products differ by more than one of them where they almost cancel.
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=0.01 * float(other.abs().max()))


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_in_half_precision_weights_learn_in_full_precision_and_in_their_own_layout(
    layer: nn.Conv2d | nn.ConvTranspose2d,
) -> None:
    _, _, of_weight = gradients(layer, layer, random(2, layer.in_channels, 8, 8), autocast=True)
    assert of_weight.dtype == torch.float32
    assert of_weight.stride() == layer.weight.stride()


@pytest.mark.parametrize("d", [1, 3, 4, 5])
def test_doubling_to_few_channels_is_the_transposed_convolution(d: int) -> None:
    small, weight = random(2, 6, 5, 5).double(), random(6, d, 4, 4).double()
    expected = torch.conv_transpose2d(small, weight, stride=2, padding=1)
    torch.testing.assert_close(_double(small, weight), expected)


@pytest.mark.parametrize(("layer", "size"), [(FromVector(10, 6), 1), (ToVector(6, 2), 4)], ids=["from", "to"])
def test_from_and_to_a_vector_they_are_the_ordinary_convolutions(layer: nn.Conv2d, size: int) -> None:
    images = random(3, layer.in_channels, size, size)
    ours = gradients(layer, layer, images, autocast=False)
    theirs = gradients(plain(layer), layer, images, autocast=False)
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other.view_as(one))


def test_frozen_weights_get_no_gradient_and_let_it_through() -> None:
    layer, images = Halving(3, 8), random(2, 3, 8, 8).requires_grad_()
    layer.requires_grad_(False)
    with torch.autocast("cpu", torch.bfloat16):
        layer(images).sum().backward()
    assert layer.weight.grad is None
    assert images.grad is not None


@pytest.mark.parametrize(
    ("half", "amx", "way"), [(False, False, "Convolution"), (True, True, "Convolution"), (True, False, "_Wide")]
)
def test_wide_layers_go_winograd_s_way_only_where_it_is_faster(
    half: bool, amx: bool, way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
    layer, images = Halving(128, 256), random(2, 128, 8, 8)
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        assert type(layer(images).grad_fn).__name__.startswith(f"{way}Backward")
