"""The convolutions of both networks: on a CPU in half precision they are computed, and learn, in other ways."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dcgan_dist.gan import convolution
from dcgan_dist.gan.convolution import Doubling, FromVector, Halving, ToVector, _double

torch.manual_seed(0)  # the layers' weights are the same in every run
# From and to colours; narrow; wide, on maps that are whole tiles and that are not.
LAYERS = (
    *(Halving(3, 64), Doubling(64, 3), Halving(16, 32), Doubling(128, 64)),
    *(Halving(128, 256), Doubling(256, 128), Halving(128, 130), Doubling(130, 128)),
)
SIZES = (16, 8, 8, 12, 8, 4, 6, 3)


@pytest.fixture(autouse=True)
def winograd_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """On every machine that runs these tests."""
    monkeypatch.setattr(convolution, "WINOGRAD_PAYS", True)


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
        # bf16 has eight bits; sums of many products differ by more than one of them where they almost cancel, and
        # Winograd's up to three times as much.
        share = 0.03 if way_of(layer, images, half=True) == WIDE else 0.01
        torch.testing.assert_close(one.float(), other, rtol=0.02, atol=share * float(other.abs().max()))


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


@pytest.mark.parametrize("layer", [Halving(3, 8), Halving(128, 128), Doubling(128, 128)], ids=str)
def test_frozen_weights_get_no_gradient_and_let_it_through(layer: nn.Conv2d | nn.ConvTranspose2d) -> None:
    images = random(2, layer.in_channels, 8, 8)
    _, expected, _ = gradients(layer, layer, images, autocast=True)
    layer.zero_grad()
    layer.requires_grad_(False)
    images.requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        output = layer(images)
    output.backward(random(*output.shape).to(output.dtype))
    layer.requires_grad_(True)
    assert layer.weight.grad is None
    assert images.grad is not None
    assert torch.equal(images.grad, expected)


WIDE, IMAGES, ORDINARY = "_Wide", "_OfImages", "Convolution"


@pytest.mark.parametrize(
    ("layer", "shape", "way"),
    [
        (Halving(128, 256), (8, 8), WIDE),
        (Halving(128, 256), (6, 6), ORDINARY),
        (Halving(128, 256), (8, 4), ORDINARY),
        (Halving(64, 128), (8, 8), ORDINARY),
        (Halving(3, 128), (8, 8), IMAGES),
        (Doubling(256, 128), (2, 2), WIDE),
        (Doubling(256, 128), (3, 3), ORDINARY),
        (Doubling(128, 3), (8, 8), IMAGES),
    ],
    ids=str,
)
def test_layers_go_the_way_that_is_fastest_for_them(
    layer: nn.Conv2d | nn.ConvTranspose2d, shape: tuple[int, int], way: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = random(2, layer.in_channels, *shape)
    assert way_of(layer, images, half=True) == way
    assert way_of(layer, images, half=False) == ORDINARY
    monkeypatch.setattr(convolution, "WINOGRAD_PAYS", False)
    assert way_of(layer, images, half=True) == (ORDINARY if way == WIDE else way)


def way_of(layer: nn.Module, images: Tensor, half: bool) -> str:
    """The function that made a layer's output."""
    with torch.autocast("cpu", torch.bfloat16, enabled=half):
        return type(layer(images).grad_fn).__name__.split("Backward")[0]


@pytest.mark.parametrize("layer", [Halving(3, 8), Halving(128, 128)], ids=str)
def test_to_differentiate_twice_is_an_error_and_not_a_wrong_number(layer: nn.Conv2d) -> None:
    images = random(1, layer.in_channels, 8, 8).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        scores = layer(images).square().sum()
    (gradient,) = torch.autograd.grad(scores, images, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        gradient.sum().backward()


def test_compiled_wide_layers_are_left_to_the_compiler() -> None:
    layer, images = Doubling(256, 128), random(64, 256, 4, 4)
    compiled = torch.compile(layer, backend="aot_eager")
    with torch.autocast("cpu", torch.bfloat16):
        output, expected = compiled(images), torch.nn.functional.conv_transpose2d(images, layer.weight, None, 2, 1)
    assert torch.equal(output, expected)
