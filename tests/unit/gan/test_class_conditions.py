"""Networks that are told of classes: what a condition changes, and that nothing changes without one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dcgan_dist.config import DataConfig, ModelConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.data.sample_order import sample_ids
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.gan.weights import initialize
from dcgan_dist.training.engine import open_update
from dcgan_dist.training.state import initial_state
from tests.given import given_inputs

CPU = torch.device("cpu")
ALONE = World(0, 1, 0, 1, CPU)
LATENT, BASE, CLASSES = 16, 8, 2


def networks(num_classes: int = CLASSES) -> tuple[Generator, Discriminator]:
    made = Generator(32, LATENT, BASE, num_classes), Discriminator(32, BASE, True, num_classes)
    for seed, network in enumerate(made):
        initialize(network, torch.Generator().manual_seed(seed))
        network.eval()
    return made


def test_the_same_latent_is_another_image_of_another_class() -> None:
    generator, _ = networks()
    latent = torch.randn(1, LATENT, generator=torch.Generator().manual_seed(0)).expand(2, -1)
    images = generator(torch.cat([latent, torch.eye(2)], dim=1))
    assert (images[0] - images[1]).abs().max() > 1e-3 * images.abs().max()
    assert torch.equal(images, generator(latent, torch.eye(2)))


def test_a_condition_adds_the_product_of_its_weights_and_the_last_maps_to_the_logit() -> None:
    _, discriminator = networks()
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    maps = discriminator.downsample(discriminator.from_image(images))
    plain, *of_class = ((maps * weight).flatten(1).sum(1) for weight in discriminator.to_logit.weight)
    told = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    expected = plain + told[:, 0] * of_class[0] + told[:, 1] * of_class[1]
    torch.testing.assert_close(discriminator(images, told), expected)


def test_without_classes_the_networks_are_the_papers() -> None:
    generator, discriminator = networks(0)
    assert next(generator.project.parameters()).shape[0] == LATENT
    assert discriminator.to_logit.weight.shape == (1, 4 * BASE, 4, 4)


def trained(precision: PrecisionName, shown: Tensor, steps: int = 3) -> tuple[Tensor, dict[str, float]]:
    """The weights of the logits, and mean figures, after some steps on images that show what is `shown`."""
    section, model = TrainSection(precision=precision), ModelConfig(latent_size=LATENT, base_channels=BASE)
    config = TrainConfig(data=DataConfig(image_size=32), model=model, train=section)
    arithmetic = Precision(precision, CPU)
    state = initial_state(config, ALONE, arithmetic, CLASSES)
    plan = BatchPlan(0, 8, 8, 0, 8, False)
    in_order = shown.clone()
    in_order[sample_ids(0, 8, 0, 8)] = shown  # so that the first step's images show it in their order
    images, inputs = given_inputs(config, plan, ALONE, arithmetic.weights, shown=in_order.to(torch.uint8))
    update = open_update(config, state, arithmetic, inputs, plan, ALONE)
    random = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (8, 3, 32, 32), generator=random, dtype=torch.uint8)
    images.set(pixels)
    for step in range(steps):
        inputs.prepare(8 * step, 1)
        update()
    return state.discriminator.to_logit.weight.detach(), state.window.take_means(ALONE) if steps else {}


def test_images_teach_the_discriminator_of_the_classes_that_they_show_alone() -> None:
    shown = torch.zeros(8, CLASSES)
    shown[:4, 0] = 1
    before, after = trained("fp32", shown, steps=0)[0], trained("fp32", shown)[0]
    assert [torch.equal(one, other) for one, other in zip(before, after, strict=True)] == [False, False, True]


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_half_precision_all_stays_finite_and_near_single_precision(precision: PrecisionName) -> None:
    shown = torch.eye(CLASSES).repeat(4, 1)
    weights, figures = trained(precision, shown)
    assert weights.isfinite().all()
    for name, value in trained("fp32", shown)[1].items():
        assert figures[name] == pytest.approx(value, abs=0.3), name
