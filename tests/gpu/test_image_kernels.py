"""The kernels for images and latents against plain torch: on a GPU, or in Triton's interpreter (TRITON_INTERPRET=1)."""

from __future__ import annotations

import copy
import os

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dcgan_dist.base.counter_random import normal, stream_key
from dcgan_dist.data.loader import BatchPlan, CachedPixels
from dcgan_dist.data.sample_order import flips, sample_ids
from dcgan_dist.data.step_images import CachedImages, mirror
from dcgan_dist.gan.fast.blocks import BlocksToImage, ImageToBlocks, image_kernels, join
from dcgan_dist.gan.fast.convolutions import use_fast_convolutions
from dcgan_dist.gan.images import to_signed_unit

ON_GPU = torch.cuda.is_available()
pytestmark = pytest.mark.skipif(
    not ON_GPU and os.environ.get("TRITON_INTERPRET") != "1", reason="needs a CUDA device or TRITON_INTERPRET=1"
)
DEVICE = torch.device("cuda", 0) if ON_GPU else torch.device("cpu")
ROUNDING = {torch.float64: 1e-12, torch.float32: 1e-5 if not ON_GPU else 2e-3, torch.bfloat16: 1.6e-2}
"""How far off a result may be, over its largest value. (fp32 convolutions of recent GPUs are TF32.)"""


def random(*shape: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> Tensor:
    values = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return values.to(DEVICE, dtype).contiguous(memory_format=torch.channels_last)


def random_pixels(*shape: int) -> Tensor:
    return torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(5), dtype=torch.uint8).to(DEVICE)


def assert_close(expected: Tensor, found: Tensor, tolerance: float) -> None:
    assert expected.shape == found.shape
    assert (expected.double() - found.double()).abs().max() <= tolerance * expected.double().abs().max()


@pytest.mark.parametrize("size", [4, 14, 32])
def test_blocks_hold_every_pixel_once_between_zeros(size: int) -> None:
    images = random(3, 3, size, size, dtype=torch.float32)
    blocks = image_kernels().to_blocks(images)
    padded = F.pad(images, (1, 1, 1, 1)).unfold(2, 2, 2).unfold(3, 2, 2)  # [n, 3, rows, columns, 2, 2]
    expected = padded.permute(0, 4, 5, 1, 2, 3).flatten(1, 3)
    assert torch.equal(blocks[:, :12], expected)
    assert not blocks[:, 12:].any()
    assert torch.equal(image_kernels().from_blocks(blocks), images)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("transposed", [False, True], ids=["from images", "to images"])
def test_layers_of_blocks_are_the_layers_they_replace(transposed: bool, dtype: torch.dtype) -> None:
    kind = nn.ConvTranspose2d if transposed else nn.Conv2d
    channels = (20, 3) if transposed else (3, 20)
    plain = nn.Sequential(kind(*channels, kernel_size=4, stride=2, padding=1, bias=False)).to(DEVICE, dtype)
    plain.to(memory_format=torch.channels_last)
    fast = copy.deepcopy(plain)
    use_fast_convolutions(fast, kernels=True)
    assert isinstance(fast[0], BlocksToImage if transposed else ImageToBlocks)
    inputs = random(2, channels[0], 10, 10, dtype=dtype)
    both = []
    for network in (plain, fast):
        leaf = inputs.clone().requires_grad_()
        outputs = network(leaf)
        outputs.backward(random(*outputs.shape, dtype=dtype, seed=1))
        both.append((outputs, leaf.grad, network[0].weight.grad))
    for expected, found in zip(*both, strict=True):
        assert_close(expected, found, ROUNDING[dtype])


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_real_and_drawn_images_are_joined_and_gradients_reach_the_drawn(dtype: torch.dtype) -> None:
    pixels = random_pixels(3, 3, 6, 6)
    fakes = random(5, 3, 6, 6, dtype=dtype).requires_grad_()
    both = join(pixels, fakes)
    scaled = to_signed_unit(pixels, torch.float64 if dtype == torch.float64 else torch.float32).to(dtype)
    # One product and difference at once may round differently by the last bit.
    assert_close(scaled, both[:3], 1e-15 if dtype == torch.float64 else 1e-7 if dtype == torch.float32 else 8e-3)
    assert torch.equal(both[3:], fakes)
    gradient = random(8, 3, 6, 6, dtype=dtype, seed=2)
    both.backward(gradient)
    assert fakes.grad is not None and torch.equal(fakes.grad, gradient[3:])


@pytest.mark.parametrize("flip", [False, True])
def test_cached_images_are_those_of_their_positions_at_the_end_of_an_epoch_too(flip: bool) -> None:
    cache = random_pixels(7, 8, 8, 3)
    plan = BatchPlan(seed=3, num_samples=7, global_batch=6, first=2, count=4, flip=flip)
    images = CachedImages(CachedPixels(cache), plan)
    for position in range(0, 60, 6):
        images.prepare(position, 1)
        expected = cache[sample_ids(3, 7, position + 2, 4).to(DEVICE)]
        if flip:
            expected = mirror(expected, flips(3, position + 2, 4, DEVICE))
        assert torch.equal(images.at(torch.tensor(position, device=DEVICE)), expected.permute(0, 3, 1, 2))


@pytest.mark.parametrize("size", [1, 8, 101])
def test_latents_are_those_of_their_positions(size: int) -> None:
    seed, position, first, count = 11, 123_456_789_000, 5, 9
    found = image_kernels().draw_normal(
        torch.tensor(position, device=DEVICE), first, stream_key(seed, "flip"), count, size, torch.float64
    )
    expected = normal(seed, "flip", position + first, count, size, DEVICE)
    assert_close(expected, found, 1e-14)
