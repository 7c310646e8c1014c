"""Batch norm's kernels against BatchNorm2d in float64: on a GPU, or in Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import copy
import os
import subprocess

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_dist.distributed import kernels
from dcgan_dist.distributed.sync_batch_norm import SyncBatchNorm2d, synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.fast import batch_norm_plain
from dcgan_dist.gan.generator import Generator

ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a CUDA device or TRITON_INTERPRET=1"
)
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
ALONE = World(0, 1, 0, 1, DEVICE)

LAYOUTS = [torch.contiguous_format, torch.channels_last]
TYPES = [torch.float32, torch.bfloat16, torch.float64, *([torch.float16] if ON_GPU else [])]  # nothing new for a CPU
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""How far off a result may be, over its largest value."""
SHAPES = [(6, 20, 5, 7), (8, 16, 1, 1), (4, 70, 5, 5)]
"""Odd sizes, a single pixel, more channels than fit a tile and rows that leave one half empty."""


def norm(channels: int, dtype: torch.dtype) -> nn.BatchNorm2d:
    layer = nn.BatchNorm2d(channels, dtype=dtype, device=DEVICE)
    random = torch.Generator().manual_seed(1)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(channels, generator=random))
        layer.bias.copy_(torch.randn(channels, generator=random))
    return layer


def maps(shape: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format, seed: int) -> Tensor:
    """Values around 2 with a deviation of 3."""
    random = torch.Generator().manual_seed(seed)
    values = torch.randn(shape, generator=random, dtype=torch.float64) * 3 + 2
    return values.to(DEVICE, dtype).contiguous(memory_format=layout)


def assert_close(name: str, expected: Tensor, found: Tensor, tolerance: float) -> None:
    error = (expected.double() - found.double()).abs().max() / expected.double().abs().max().clamp(min=1)
    assert error <= tolerance, f"{name} is {error:.2g} off"


def weights_of(dtype: torch.dtype) -> torch.dtype:
    return torch.float64 if dtype == torch.float64 else torch.float32


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", TYPES)
def test_a_layer_on_kernels_is_batch_norm_in_float64(
    dtype: torch.dtype, layout: torch.memory_format, shape: tuple[int, ...], parts: int
) -> None:
    exact, ours = norm(shape[1], torch.float64), SyncBatchNorm2d(norm(shape[1], weights_of(dtype)), ALONE)
    if shape[-1] == 1:
        exact.momentum = ours.momentum = None  # all batches count alike, as where the average is calibrated
    ours.parts = parts
    for step in range(2):
        values, grad = maps(shape, dtype, layout, 10 + step), maps(shape, dtype, layout, 20 + step)
        input, exact_input = values.clone().requires_grad_(), values.double().requires_grad_()
        output, expected = ours(input), torch.cat([exact(part) for part in exact_input.chunk(parts)])
        output.backward(grad)
        expected.backward(grad.double())
        assert output.dtype == dtype
        assert output.stride() == values.stride()
        assert exact_input.grad is not None and input.grad is not None
        assert_close("output", expected, output, ROUNDING[dtype])
        assert_close("input gradient", exact_input.grad, input.grad, ROUNDING[dtype])
    exactly = 1e-12 if dtype == torch.float64 else 1e-5
    for name, value in exact.named_parameters():
        assert value.grad is not None
        assert_close(f"gradient of {name}", value.grad, dict(ours.named_parameters())[name].grad, exactly)  # type: ignore[arg-type]
    for name, value in exact.named_buffers():
        assert_close(name, value, dict(ours.named_buffers())[name], exactly)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_sums_over_many_pieces_lose_no_digits(layout: torch.memory_format) -> None:
    """As many rows as several programs share, of values whose mean is a thousand times their deviation."""
    shape = (10, 8, 24, 23)
    values = (maps(shape, torch.float32, layout, 3) + 3000).requires_grad_()
    exact, ours = norm(8, torch.float64), SyncBatchNorm2d(norm(8, torch.float32), ALONE)
    assert_close("output", exact(values.double()), ours(values), 1e-3)
    assert exact.running_var is not None and ours.running_var is not None
    assert_close("variance", exact.running_var, ours.running_var, 1e-5)


def test_the_same_maps_give_the_same_bits_every_time() -> None:
    values, grad = (maps((16, 32, 8, 8), torch.bfloat16, torch.channels_last, seed) for seed in (4, 5))
    results = []
    for _ in range(3):
        layer, input = SyncBatchNorm2d(norm(32, torch.float32), ALONE), values.clone().requires_grad_()
        layer.parts = 2
        layer(input).backward(grad)
        results.append([input.grad, layer.weight.grad, layer.bias.grad, layer.running_var])
    for other in results[1:]:
        assert all(torch.equal(one, two) for one, two in zip(results[0], other, strict=True))  # type: ignore[arg-type]


def test_maps_with_gaps_in_memory_are_taken_too() -> None:
    values = maps((4, 24, 6, 8), torch.float32, torch.channels_last, 6)[:, :20, :, ::2].requires_grad_()
    exact, ours = norm(20, torch.float64), SyncBatchNorm2d(norm(20, torch.float32), ALONE)
    expected = exact(values.detach().double())
    output = ours(values)
    assert_close("output", expected, output, 1e-5)
    (grad,) = torch.autograd.grad(output.square().sum(), values)
    assert grad.shape == values.shape


@pytest.mark.parametrize("slope", [1.0, 0.0, 0.2])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_an_activation_behind_the_normalisation_is_differentiated_through(dtype: torch.dtype, slope: float) -> None:
    from dcgan_dist.gan.fast import batch_norm_kernels

    input, grad = (maps((6, 20, 5, 7), dtype, torch.channels_last, seed) for seed in (7, 8))
    exact = norm(20, torch.float64)
    exact_input = input.double().requires_grad_()
    expected = torch.cat([F.leaky_relu(exact(part), slope) for part in exact_input.chunk(2)])
    expected.backward(grad.double())
    assert exact_input.grad is not None and exact.weight.grad is not None and exact.bias.grad is not None
    layer = norm(20, weights_of(dtype))
    whole = batch_norm_plain.Norm(layer.weight.detach(), layer.bias.detach(), exact.eps, slope)
    for form in (batch_norm_kernels, batch_norm_plain):
        combined = form.combine(form.measure(input, 2, whole.weight))
        output = form.normalise(input, combined, whole)
        pieces = form.gradient_sums(grad, input, combined, whole)
        sums, (of_bias, of_weight) = form.add_up(pieces)
        of_input = form.input_gradient(grad, input, combined, sums, whole)
        assert_close("output", expected, output, ROUNDING[dtype])
        assert_close("input gradient", exact_input.grad, of_input, ROUNDING[dtype])
        exactly = 1e-12 if dtype == torch.float64 else 1e-5
        assert_close("gradient of weight", exact.weight.grad, of_weight, exactly)
        assert_close("gradient of bias", exact.bias.grad, of_bias, exactly)


@pytest.mark.parametrize(
    "network", [Generator(32, 8, 4), Discriminator(32, 4, True)], ids=["generator", "discriminator"]
)
@pytest.mark.parametrize("training", [True, False])
def test_networks_with_activations_in_their_kernels_are_the_papers(network: nn.Module, training: bool) -> None:
    plain = copy.deepcopy(network).to(DEVICE, torch.float64).train(training)
    fused = copy.deepcopy(plain)
    synchronise_batch_norm(fused, ALONE)
    assert not any(isinstance(layer, nn.ReLU) for layer in fused.modules())
    assert list(fused.state_dict()) == list(plain.state_dict())
    shape = (6, 8) if isinstance(network, Generator) else (6, 3, 32, 32)
    results = []
    for each in (plain, fused):
        input = torch.randn(shape, generator=torch.Generator().manual_seed(9), dtype=torch.float64).to(DEVICE)
        output = each(input.requires_grad_())
        output.square().sum().backward()
        results.append({"output": output, "input": input.grad} | {name: p.grad for name, p in each.named_parameters()})
    for name, expected in results[0].items():
        assert_close(name, expected, results[1][name], 1e-10)


@pytest.mark.parametrize("problem", [subprocess.CalledProcessError(1, "gcc"), AssertionError("no libcuda")], ids=str)
def test_where_no_kernel_compiles_a_line_says_so_and_torchs_operators_are_used(
    problem: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Python without its headers, say: Triton passes on whatever the compiler that it calls ends with."""
    from dcgan_dist.gan.fast import batch_norm_kernels

    def fail(*given: object) -> None:
        raise problem

    kernels._compiles.cache_clear()
    monkeypatch.setattr(batch_norm_kernels, "measure", fail)
    try:
        assert not kernels.kernels_run_on(DEVICE)
    finally:
        kernels._compiles.cache_clear()
    (line,) = caplog.messages
    assert "Triton compiles nothing here" in line and "\n" not in line
