"""A batch worked through in parts: the update is that of the whole batch, whose batch norm goes by parts."""

from __future__ import annotations

import copy
from typing import Any, Literal

import pytest
import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from dcgan_dist.gan.images import to_signed_unit
from dcgan_dist.gan.losses import LOSSES
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.gan.step import Batch
from tests.unit.gan.test_networks import BATCH, CPU, LATENT, Pair, batch

LossName = Literal["bce", "hinge", "lsgan", "relativistic"]


class ByParts(nn.BatchNorm2d):
    """Torch's batch norm, part by part."""

    ends: list[int]

    def forward(self, input: Tensor) -> Tensor:
        return torch.cat([super(ByParts, self).forward(part) for part in input.tensor_split(self.ends)])


def by_parts(network: nn.Module, ends: list[int]) -> nn.Module:
    """A copy whose batch norm knows of parts, and nothing else does."""
    network = copy.deepcopy(network)
    for layer in network.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.__class__ = ByParts
            layer.ends = ends  # type: ignore[assignment]
    return network


@pytest.mark.parametrize("parts", [1, 2, 3])
def test_a_batch_is_split_into_parts_that_hold_all_of_it(parts: int) -> None:
    random = torch.randn(4, BATCH, 7)
    whole = Batch(*batch(torch.float32)[:3], noise=torch.randn(BATCH, 3, 64, 64), augmentation=random)
    split = whole.split(parts)
    sizes = [len(part.pixels) for part in split]
    assert len(split) == parts and max(sizes) - min(sizes) <= 1
    for field, value in enumerate(whole):
        pieces = [piece for part in split if (piece := part[field]) is not None]
        assert value is not None and torch.equal(torch.cat(pieces, dim=1 if value is random else 0), value)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("reuse_fakes", [True, False])
@pytest.mark.parametrize("parts", [2, 3])
def test_a_step_in_parts_is_the_step_on_the_whole_batch(loss: LossName, reuse_fakes: bool, parts: int) -> None:
    """In three parts the last one is larger."""
    pair = Pair(Precision("fp64", CPU))
    pair.step.loss, pair.step.reuse_fakes, pair.step.accumulate = LOSSES[loss], reuse_fakes, parts
    given = batch(torch.float64)
    if reuse_fakes:
        given = given._replace(second_latents=given.first_latents)
    ends = [BATCH * part // parts for part in range(1, parts)]
    generator, discriminator = by_parts(pair.generator, ends), by_parts(pair.discriminator, ends)
    figures = pair.step(given)

    real_images = to_signed_unit(given.pixels, torch.float64)
    fakes = generator(given.first_latents).detach()
    real, fake = discriminator(real_images), discriminator(fakes)
    d_loss = LOSSES[loss].discriminator(real, fake)
    d_loss.backward()
    assert_same_gradients(pair.discriminator, discriminator)
    discriminator.load_state_dict(pair.discriminator.state_dict())  # as updated
    g_loss = LOSSES[loss].generator(discriminator(real_images), discriminator(generator(given.second_latents)))
    g_loss.backward()
    assert_same_gradients(pair.generator, generator)
    torch.testing.assert_close((figures.discriminator_loss, figures.generator_loss), (d_loss, g_loss))
    if loss == "bce":
        torch.testing.assert_close(figures.real_probability, real.sigmoid().mean())


def assert_same_gradients(ours: nn.Module, theirs: nn.Module) -> None:
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-9, atol=1e-12)


def test_a_step_in_parts_keeps_a_part_of_what_the_whole_batch_keeps_for_its_gradients() -> None:
    kept = []
    for parts in (1, 4):
        pair = Pair(Precision("fp32", CPU))
        pair.step.accumulate, pair.step.reuse_fakes = parts, True
        one = batch(torch.float32)
        given = Batch(one.pixels.repeat(4, 1, 1, 1), *[one.first_latents.repeat(4, 1)] * 2)
        kept.append(most_kept(pair, given))
    assert kept[1] < 0.3 * kept[0]


def most_kept(pair: Pair, given: Batch) -> int:
    """Bytes of the activations that a step keeps at once for backward passes, at most."""
    now = most = 0

    class Kept:
        def __init__(self, tensor: Tensor) -> None:
            nonlocal now, most
            self.tensor, self.bytes = tensor, tensor.numel() * tensor.element_size()
            now += self.bytes
            most = max(most, now)

        def __del__(self) -> None:
            nonlocal now
            now -= self.bytes

    def pack(tensor: Tensor) -> Any:
        return Kept(tensor) if tensor.dim() == 4 else tensor  # maps, and weights

    with saved_tensors_hooks(pack, lambda kept: kept.tensor if isinstance(kept, Kept) else kept):
        pair.step(given)
    return most


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_steps_in_parts_stay_finite_in_half_precision(name: PrecisionName) -> None:
    pair = Pair(Precision(name, CPU), 32)
    pair.step.accumulate = 2
    for _ in range(15):  # fp16 leaves out steps until its scale has come down
        assert all(value.isfinite() for value in pair.step(batch(torch.float32, 32)))
    for network in (pair.generator, pair.discriminator):
        assert all(parameter.isfinite().all() for parameter in network.parameters())


def test_gradients_of_parts_in_half_precision_add_up_in_full_precision() -> None:
    learner = Pair(Precision("bf16", CPU), 32).step.generator
    latents = torch.randn(2, BATCH, LATENT)

    def gradients(*parts: Tensor) -> Tensor:
        learner.begin()
        for part in parts:
            learner.add_gradients(learner(part).square().mean())
        return torch.cat([weight.grad.flatten() for weight in learner.network.parameters() if weight.grad is not None])

    each = [gradients(part).clone() for part in latents]
    assert torch.equal(gradients(*latents), each[0] + each[1])


def test_an_update_that_broke_off_leaves_nothing_to_the_next() -> None:
    """As that of a step which could not be recorded as a CUDA graph."""
    broken, other = (Pair(Precision("fp64", CPU), 32) for _ in range(2))
    given = batch(torch.float64, 32)
    latents = given.first_latents
    for pair in (broken, other):
        pair.step.reuse_fakes = True
        pair.step(given)
    broken.step.discriminator.add_gradients(broken.step.discriminator(broken.generator(latents)).sum())
    for pair in (broken, other):
        pair.discriminator.load_state_dict(other.discriminator.state_dict())
        pair.generator.load_state_dict(other.generator.state_dict())
        pair.step(given)
    assert_same_gradients(broken.discriminator, other.discriminator)


def test_a_part_that_is_not_finite_leaves_the_whole_update_out() -> None:
    pair = Pair(Precision("fp32", CPU))
    pair.step.accumulate = 2
    before = copy.deepcopy(pair.discriminator).requires_grad_(False)
    given = batch(torch.float32)
    given.first_latents[0].fill_(torch.inf)  # of the first part
    assert pair.step(given).non_finite > 0
    for one, other in zip(before.parameters(), pair.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)
