"""Differentiable augmentation against the paper's, written here image by image; and where the step applies it."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from dcgan_dist.base.counter_random import uniform
from dcgan_dist.config import DataConfig, TrainConfig
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.sample_order import share
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.augment import NUMBERS, augment
from dcgan_dist.gan.images import to_signed_unit
from dcgan_dist.gan.losses import LOSSES
from dcgan_dist.gan.precision import Precision
from dcgan_dist.training.by_position import StepNumbers
from tests.unit.gan.test_networks import BATCH, Pair, batch

CPU = torch.device("cpu")
ALMOST_1 = 1 - 2**-24
"""The largest number there can be."""


def images(count: int, size: int, dtype: torch.dtype = torch.float64) -> Tensor:
    random = torch.Generator().manual_seed(1)
    return torch.rand(count, 3, size, size, generator=random, dtype=torch.float64).mul_(2).sub_(1).to(dtype)


def numbers(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return uniform(5, "generator fake augmentation", 0, count, NUMBERS, CPU).to(dtype)


def of_one_image(image: Tensor, row: list[float]) -> Tensor:
    """Colour, translation and cutout of an image [3, size, size], pixel by pixel."""
    size = image.shape[1]
    brightness, saturation, contrast, *places = row
    image = image + (brightness - 0.5)
    image = (image - image.mean(0)) * 2 * saturation + image.mean(0)
    image = (image - image.mean()) * (contrast + 0.5) + image.mean()
    down, right = (int(number * (2 * (size // 8) + 1)) - size // 8 for number in places[:2])
    top, left = (int(number * (size + 1)) - size // 4 for number in places[2:])
    changed = torch.zeros_like(image)
    for y in range(size):
        for x in range(size):
            comes_from_inside = 0 <= y - down < size and 0 <= x - right < size
            is_cut = top <= y < top + size // 2 and left <= x < left + size // 2
            if comes_from_inside and not is_cut:
                changed[:, y, x] = image[:, y - down, x - right]
    return changed


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [8, 32])
def test_images_are_changed_as_in_the_paper(size: int, layout: torch.memory_format) -> None:
    given, rows = images(12, size), numbers(12)
    found = augment(given.contiguous(memory_format=layout), rows)
    for image, row, changed in zip(given, rows.tolist(), found, strict=True):
        torch.testing.assert_close(changed, of_one_image(image, row), rtol=0, atol=1e-12)
    assert found.is_contiguous(memory_format=torch.channels_last)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_shifts_and_holes_reach_as_far_as_the_paper_lets_them_and_no_farther(size: int, dtype: torch.dtype) -> None:
    """Numbers at the ends of their range; the colours stay as they are."""
    ends = torch.tensor([[0.5, 0.5, 0.5, end, end, 0, 0] for end in (0, ALMOST_1)], dtype=dtype)
    moved = augment(torch.ones(2, 3, size, size, dtype=dtype), ends)[:, 0]
    far, half = size // 8, size // 4
    assert not moved[0, -far:].any() and not moved[0, :, -far:].any() and moved[0, half:-far, half:-far].all()
    assert not moved[1, :far].any() and not moved[1, :, :far].any() and moved[1, half:, half:].all()
    corners = torch.tensor([[0.5] * 5 + [end, end] for end in (0, ALMOST_1)], dtype=dtype)
    cut = augment(torch.ones(2, 3, size, size, dtype=dtype), corners)[:, 0]
    assert [int((one == 0).sum()) for one in cut] == [half * half] * 2
    assert not cut[0, :half, :half].any() and not cut[1, -half:, -half:].any()


def test_gradients_and_their_gradients_are_those_of_what_it_computes() -> None:
    given, rows = images(1, 8).requires_grad_(), numbers(1)
    assert torch.autograd.gradcheck(lambda pixels: augment(pixels, rows), given)
    assert torch.autograd.gradgradcheck(lambda pixels: augment(pixels, rows).square(), given)


def test_without_numbers_images_are_left_alone() -> None:
    given = images(2, 8)
    assert augment(given, None) is given


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_images_keep_their_type_and_are_rounded_once(dtype: torch.dtype) -> None:
    given, rows = images(8, 32, dtype), numbers(8, torch.float32)
    found = augment(given, rows)
    assert found.dtype == dtype
    assert torch.equal(found, augment(given.float(), rows).to(dtype))


def test_the_augmentation_of_an_image_does_not_depend_on_the_others() -> None:
    given, rows = images(9, 32), numbers(9)
    alone = torch.cat([augment(given[k : k + 1], rows[k : k + 1]) for k in range(9)])
    torch.testing.assert_close(augment(given, rows), alone, rtol=0, atol=1e-14)


def test_the_host_never_needs_a_value_so_a_gpu_can_record_it() -> None:
    """On the meta device there are no values."""
    given, rows = images(4, 32).to("meta"), numbers(4).to("meta")
    assert augment(given, rows).shape == given.shape


# --- its numbers ------------------------------------------------------------------------------------------------------


def test_numbers_are_uniform_and_the_same_in_single_precision() -> None:
    drawn = uniform(0, "discriminator real augmentation", 0, 20_000, NUMBERS, CPU)
    assert drawn.min() >= 0 and drawn.max() <= ALMOST_1
    assert torch.equal(drawn.float().double(), drawn)
    assert (drawn.mean(0) - 0.5).abs().max() < 5 * (1 / 12 / 20_000) ** 0.5
    assert (drawn.var(0) - 1 / 12).abs().max() < 0.003
    assert (torch.corrcoef(drawn.T) - torch.eye(NUMBERS)).abs().max() < 5 / 20_000**0.5


def test_a_row_of_numbers_is_the_same_alone_or_among_others() -> None:
    together = uniform(4, "generator real augmentation", 10, 50, NUMBERS, CPU)
    alone = [uniform(4, "generator real augmentation", row, 1, NUMBERS, CPU) for row in range(10, 60)]
    assert torch.equal(together, torch.cat(alone))


def given_to(rank: int, ranks: int, augment: Literal["none", "diff"] = "diff", rollbacks: int = 0) -> Tensor | None:
    config, world = TrainConfig(data=DataConfig(augment=augment)), World(rank, ranks, 0, 1, CPU)
    plan = BatchPlan(7, 100, 40, *share(40, rank, ranks), flip=False)
    return StepNumbers(config, plan, world, torch.float32, rollbacks).augmentation(80)


@pytest.mark.parametrize("ranks", [2, 3])
def test_the_ranks_together_augment_as_one_rank(ranks: int) -> None:
    alone, parts = given_to(0, 1), [given_to(rank, ranks) for rank in range(ranks)]
    assert alone is not None
    assert torch.equal(torch.cat([part for part in parts if part is not None], dim=1), alone)
    assert alone.shape == (4, 40, NUMBERS)
    assert len(alone.unique()) > 4 * 40 * NUMBERS - 5, "each update has numbers of its own for each kind of image"


def test_after_a_rollback_augmentation_is_another() -> None:
    before, after = given_to(0, 1), given_to(0, 1, rollbacks=1)
    assert before is not None and after is not None
    assert not torch.equal(before, after)


def test_nothing_is_augmented_unless_asked_for() -> None:
    assert given_to(0, 1, "none") is None


# --- in the step ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["bce", "relativistic"])
@pytest.mark.parametrize("reuse_fakes", [True, False])
def test_the_discriminator_sees_images_only_augmented_each_time_anew(reuse_fakes: bool, loss: str) -> None:
    pair, seen, drawn = Pair(Precision("fp64", CPU), 32), [], []
    pair.step.reuse_fakes, pair.step.loss = reuse_fakes, LOSSES[loss]
    pair.discriminator.register_forward_pre_hook(lambda network, inputs: seen.append(inputs[0].detach()))
    pair.generator.register_forward_hook(lambda network, inputs, output: drawn.append(output.detach()))
    rows = torch.stack([numbers(BATCH).roll(kind, 1) for kind in range(4)])
    given = batch(torch.float64, 32)
    pair.step(given._replace(augmentation=rows))
    real = to_signed_unit(given.pixels, torch.float64)
    expected = [torch.cat([augment(real, rows[0]), augment(drawn[0], rows[1])]), augment(drawn[-1], rows[3])]
    if loss == "relativistic":
        expected[1] = torch.cat([augment(real, rows[2]), expected[1]])
    assert len(seen) == 2 and len(drawn) == (1 if reuse_fakes else 2)
    assert all(torch.equal(one, other) for one, other in zip(seen, expected, strict=True))


def test_the_generator_learns_through_the_augmentation() -> None:
    """What the hole covers and what is moved out of sight gives no gradient: covered whole, it would learn nothing."""
    pair = Pair(Precision("fp64", CPU), 32)
    drawn = images(1, 32).requires_grad_()
    row = torch.tensor([[0.5, 0.5, 0.5, 0.5, 0.5, 0.5, 0.5]], dtype=torch.float64)
    pair.discriminator.eval()(augment(drawn, row)).sum().backward()
    assert drawn.grad is not None
    assert not drawn.grad[:, :, 8:24, 8:24].any() and drawn.grad[:, :, :8].all()


def test_steps_in_bf16_change_both_networks_and_stay_finite() -> None:
    pair = Pair(Precision("bf16", CPU), 32)
    before = [[weight.clone() for weight in network.parameters()] for network in (pair.generator, pair.discriminator)]
    for step in range(4):
        rows = uniform(step, "generator fake augmentation", 0, 4 * BATCH, NUMBERS, CPU).float()
        figures = pair.step(batch(torch.float32, 32)._replace(augmentation=rows.view(4, BATCH, NUMBERS)))
        assert all(value.isfinite() for value in figures)
    for network, old in zip((pair.generator, pair.discriminator), before, strict=True):
        assert all(not torch.equal(now, then) for now, then in zip(network.parameters(), old, strict=True))
