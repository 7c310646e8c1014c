"""Networks, losses and the training step against the tutorial's, written here as plainly as there."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dcgan_dist.base.counter_random import normal
from dcgan_dist.base.grid import lay_out
from dcgan_dist.distributed.sync_batch_norm import synchronise_batch_norm
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from dcgan_dist.gan.images import to_pixels, to_signed_unit
from dcgan_dist.gan.learner import Learner, half_copies
from dcgan_dist.gan.losses import BCE, LOSSES
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.gan.step import Batch, GanStep
from dcgan_dist.gan.weights import initialize, update_average
from dcgan_dist.training.samples import calibrate_batch_norm

CPU = torch.device("cpu")
LATENT, BASE, BATCH = 10, 4, 6


def up(channels_in: int, channels_out: int, stride: int, padding: int) -> list[nn.Module]:
    convolution = nn.ConvTranspose2d(channels_in, channels_out, 4, stride, padding, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.ReLU()]


def down(channels_in: int, channels_out: int) -> list[nn.Module]:
    convolution = nn.Conv2d(channels_in, channels_out, 4, 2, 1, bias=False)
    return [convolution, nn.BatchNorm2d(channels_out), nn.LeakyReLU(0.2)]


def tutorial_generator(latent: int, base: int) -> nn.Sequential:
    """For 64 pixels; takes latents [n, latent, 1, 1]."""
    return nn.Sequential(
        *up(latent, base * 8, 1, 0),
        *up(base * 8, base * 4, 2, 1),
        *up(base * 4, base * 2, 2, 1),
        *up(base * 2, base, 2, 1),
        nn.ConvTranspose2d(base, 3, 4, 2, 1, bias=False),
        nn.Tanh(),
    )


def tutorial_discriminator(base: int) -> nn.Sequential:
    """For 64 pixels; returns probabilities [n, 1, 1, 1]."""
    return nn.Sequential(
        *down(3, base),
        *down(base, base * 2),
        *down(base * 2, base * 4),
        *down(base * 4, base * 8),
        nn.Conv2d(base * 8, 1, 4, 1, 0, bias=False),
        nn.Sigmoid(),
    )


def parameter_count(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """From one network to another of the same layers under other names."""
    target.load_state_dict(dict(zip(target.state_dict(), source.state_dict().values(), strict=True)))


# --- networks ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [32, 64, 128, 256])
def test_any_power_of_two_is_drawn_and_judged(size: int) -> None:
    images = Generator(size, LATENT, BASE)(torch.randn(2, LATENT))
    assert images.shape == (2, 3, size, size)
    assert images.abs().max() <= 1
    for input_norm in (True, False):
        assert Discriminator(size, BASE, input_norm)(images).shape == (2,)


def test_one_image_is_judged_by_one_number() -> None:
    assert Discriminator(32, BASE, True).eval()(torch.zeros(1, 3, 32, 32)).shape == (1,)


def test_at_64_pixels_the_networks_are_the_tutorials() -> None:
    pairs = [
        (Generator(64, 100, 64), tutorial_generator(100, 64), 3_576_704),
        (Discriminator(64, 64, True), tutorial_discriminator(64), 2_765_696),
    ]
    for ours, tutorials, count in pairs:
        shapes = [[tuple(value.shape) for value in network.state_dict().values()] for network in (ours, tutorials)]
        assert shapes[0] == shapes[1]
        assert parameter_count(ours) == parameter_count(tutorials) == count


def test_they_compute_what_the_tutorials_compute() -> None:
    torch.manual_seed(0)
    generator, discriminator = Generator(64, LATENT, BASE), Discriminator(64, BASE, True)
    expected_generator, expected_discriminator = tutorial_generator(LATENT, BASE), tutorial_discriminator(BASE)
    copy_weights(generator, expected_generator)
    copy_weights(discriminator, expected_discriminator)
    latents = torch.randn(BATCH, LATENT)
    images = generator(latents)
    torch.testing.assert_close(images, expected_generator(latents[:, :, None, None]))
    torch.testing.assert_close(discriminator(images).sigmoid(), expected_discriminator(images).flatten())


def test_without_input_norm_only_the_first_normalisation_is_gone() -> None:
    counts = [
        sum(isinstance(layer, nn.BatchNorm2d) for layer in Discriminator(64, BASE, input_norm).modules())
        for input_norm in (True, False)
    ]
    assert counts == [4, 3]


def test_initial_weights_are_the_papers_and_come_from_the_given_generator_alone() -> None:
    networks = [Generator(64, 100, 32), Generator(64, 100, 32), Generator(64, 100, 32)]
    for network, seed in zip(networks, (1, 1, 2), strict=True):
        torch.manual_seed(torch.seed())  # the global generator must not matter
        initialize(network, torch.Generator().manual_seed(seed))
    first, same, other = (list(network.parameters()) for network in networks)
    assert all(torch.equal(one, two) for one, two in zip(first, same, strict=True))
    assert not torch.equal(first[0], other[0])
    for layer in networks[0].modules():
        if isinstance(layer, nn.ConvTranspose2d):
            assert abs(layer.weight.mean().item()) < 0.002
            assert abs(layer.weight.std().item() - 0.02) < 0.002
        if isinstance(layer, nn.BatchNorm2d):
            assert abs(layer.weight.mean().item() - 1) < 0.02
            assert not layer.bias.any()


# --- losses -----------------------------------------------------------------------------------------------------------


def test_losses_are_binary_cross_entropy_on_probabilities() -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 3
    cross_entropy = nn.BCELoss()
    expected = cross_entropy(real.sigmoid(), torch.ones(50).double())
    expected += cross_entropy(fake.sigmoid(), torch.zeros(50).double())
    torch.testing.assert_close(BCE.discriminator(real, fake), expected)
    torch.testing.assert_close(BCE.generator(real, fake), cross_entropy(fake.sigmoid(), torch.ones(50).double()))


@pytest.mark.parametrize(
    ("name", "discriminator", "generator"),
    [
        ("hinge", lambda real, fake: (1 - real).clamp(min=0) + (1 + fake).clamp(min=0), lambda real, fake: -fake),
        ("lsgan", lambda real, fake: 0.5 * (real - 1) ** 2 + 0.5 * fake**2, lambda real, fake: 0.5 * (fake - 1) ** 2),
        (
            "relativistic",
            lambda real, fake: -(real - fake).sigmoid().log(),
            lambda real, fake: -(fake - real).sigmoid().log(),
        ),
    ],
)
def test_other_losses_are_their_papers(
    name: str, discriminator: Callable[[Tensor, Tensor], Tensor], generator: Callable[[Tensor, Tensor], Tensor]
) -> None:
    torch.manual_seed(0)
    real, fake = torch.randn(2, 50, dtype=torch.float64) * 3
    torch.testing.assert_close(LOSSES[name].discriminator(real, fake), discriminator(real, fake).mean())
    torch.testing.assert_close(LOSSES[name].generator(real, fake), generator(real, fake).mean())


@pytest.mark.parametrize("name", LOSSES)
def test_a_step_with_any_loss_changes_both_networks_and_stays_finite(name: str) -> None:
    pair = Pair(Precision("bf16", CPU), 32)
    pair.step.loss = LOSSES[name]
    before = [copy.deepcopy(network.state_dict()) for network in (pair.generator, pair.discriminator)]
    for _ in range(3):
        assert all(value.isfinite() for value in pair.step(batch(torch.float32, 32)))
    for network, old in zip((pair.generator, pair.discriminator), before, strict=True):
        for key, value in network.named_parameters():
            assert not torch.equal(value, old[key]), key


def test_losses_stay_exact_where_probabilities_round_to_0_or_1() -> None:
    logits = torch.tensor([200.0, -200.0], requires_grad=True)
    loss = BCE.generator(logits, logits)
    loss.backward()
    assert loss.item() == 100
    assert logits.grad is not None
    assert logits.grad.tolist() == [0, -0.5]


# --- the step ---------------------------------------------------------------------------------------------------------


@dataclass
class Pair:
    """Both networks, their optimizers, and a step over them."""

    precision: Precision
    size: int = 64
    generator: nn.Module = field(init=False)
    discriminator: nn.Module = field(init=False)
    step: GanStep = field(init=False)

    def __post_init__(self) -> None:
        self.generator = Generator(self.size, LATENT, BASE)
        self.discriminator = Discriminator(self.size, BASE, True)
        for seed, network in enumerate((self.generator, self.discriminator)):
            initialize(network, torch.Generator().manual_seed(seed))
            network.to(self.precision.weights)
        synchronise_batch_norm(self.discriminator, World(0, 1, 0, 1, CPU))
        generator, discriminator = (
            Learner(
                network,
                adam(network, fused=True),
                self.precision.scaler(),
                self.precision,
                copies=half_copies(network, self.precision),
            )
            for network in (self.generator, self.discriminator)
        )
        self.step = GanStep(generator, discriminator, self.precision)


def adam(network: nn.Module, fused: bool = False) -> torch.optim.Adam:
    return torch.optim.Adam(network.parameters(), lr=0.0002, betas=(0.5, 0.999), fused=fused)


def batch(dtype: torch.dtype, size: int = 64) -> Batch:
    random = torch.Generator().manual_seed(3)
    pixels = torch.randint(0, 256, (BATCH, 3, size, size), generator=random, dtype=torch.uint8)
    first, second = torch.randn(2, BATCH, LATENT, generator=random, dtype=torch.float64).to(dtype)
    return Batch(pixels, first, second)


def tutorial_step(
    generator: nn.Module, discriminator: nn.Module, pixels: Tensor, first: Tensor, second: Tensor
) -> tuple[dict[str, Tensor], torch.optim.Adam, torch.optim.Adam]:
    """The tutorial's loop body, with its batch and latents given: two graphs, probabilities and BCELoss."""
    generator_optimizer, discriminator_optimizer, loss = adam(generator), adam(discriminator), nn.BCELoss()
    x = (pixels.to(first.dtype) / 255 - 0.5) / 0.5

    discriminator_optimizer.zero_grad()
    real = discriminator(x).flatten()
    fake = discriminator(generator(first[:, :, None, None])).flatten()
    d_loss = loss(real, torch.ones_like(real)) + loss(fake, torch.zeros_like(fake))
    d_loss.backward()
    discriminator_optimizer.step()

    generator_optimizer.zero_grad()
    fooled = discriminator(generator(second[:, :, None, None])).flatten()
    g_loss = loss(fooled, torch.ones_like(fooled))
    g_loss.backward()
    generator_optimizer.step()
    figures = {
        "discriminator_loss": d_loss,
        "generator_loss": g_loss,
        "real_probability": real.mean(),
        "fake_probability": fake.mean(),
    }
    return figures, generator_optimizer, discriminator_optimizer


@pytest.mark.parametrize(("name", "tolerance"), [("fp64", 1e-12), ("fp32", 1e-5)])
def test_a_step_is_the_tutorials_step(name: PrecisionName, tolerance: float) -> None:
    pair = Pair(Precision(name, CPU))
    dtype = pair.precision.weights
    generator, discriminator = tutorial_generator(LATENT, BASE).to(dtype), tutorial_discriminator(BASE).to(dtype)
    copy_weights(pair.generator, generator)
    copy_weights(pair.discriminator, discriminator)

    found = pair.step(batch(dtype))
    expected, generator_optimizer, discriminator_optimizer = tutorial_step(generator, discriminator, *batch(dtype)[:3])

    for name_of_figure, value in expected.items():
        assert abs(getattr(found, name_of_figure).item() - value.item()) < tolerance
    for ours, tutorials in ((pair.generator, generator), (pair.discriminator, discriminator)):
        for one, other in zip(ours.buffers(), tutorials.buffers(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)
    for ours, tutorials in (
        (pair.step.generator.optimizer, generator_optimizer),
        (pair.step.discriminator.optimizer, discriminator_optimizer),
    ):
        # Adam's means of gradients: its first step on weights forgets all of a gradient but the sign.
        for one, other in zip(means_of_gradients(ours), means_of_gradients(tutorials), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=tolerance)


def means_of_gradients(optimizer: torch.optim.Optimizer) -> list[Tensor]:
    return [state["exp_avg"] for state in optimizer.state_dict()["state"].values()]


@pytest.mark.parametrize("name", ["fp64", "fp32"])
def test_after_a_step_the_weights_are_the_tutorials(name: PrecisionName) -> None:
    pair = Pair(Precision(name, CPU))
    dtype = pair.precision.weights
    generator, discriminator = tutorial_generator(LATENT, BASE).to(dtype), tutorial_discriminator(BASE).to(dtype)
    copy_weights(pair.generator, generator)
    copy_weights(pair.discriminator, discriminator)
    pair.step(batch(dtype))
    tutorial_step(generator, discriminator, *batch(dtype)[:3])
    for ours, tutorials in ((pair.generator, generator), (pair.discriminator, discriminator)):
        for one, other in zip(ours.parameters(), tutorials.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_the_generators_step_leaves_the_discriminator_alone_and_trainable() -> None:
    pair = Pair(Precision("fp32", CPU))
    given = batch(torch.float32)
    pair.step._teach_discriminator(given, pair.generator(given.first_latents), 1.0)
    before = [parameter.grad.clone() for parameter in pair.discriminator.parameters() if parameter.grad is not None]
    with pair.step.discriminator.frozen():
        pair.step._teach_generator(given, pair.generator(given.second_latents), 1.0)
    after = [parameter.grad for parameter in pair.discriminator.parameters() if parameter.grad is not None]
    assert len(before) == len(after) == len(list(pair.discriminator.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))
    assert all(parameter.requires_grad for parameter in pair.discriminator.parameters())


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_half_precision_steps_are_near_those_of_full_precision_and_stay_finite(name: PrecisionName) -> None:
    half, full = Pair(Precision(name, CPU), 32), Pair(Precision("fp32", CPU), 32)
    assert half.step.generator.scaler.is_enabled() == (name == "fp16")
    found, expected = (pair.step(batch(torch.float32, 32)) for pair in (half, full))
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == torch.float32
        assert abs(one.item() - other.item()) < 0.05
    figures = found
    for _ in range(15):  # fp16 leaves out steps until its scale has come down
        figures = half.step(batch(torch.float32, 32))
    assert all(value.isfinite() for value in figures)
    assert figures.discriminator_loss < found.discriminator_loss
    for network in (half.generator, half.discriminator):
        for value in network.state_dict().values():
            assert value.dtype in (torch.float32, torch.int64)
            assert value.isfinite().all()


@pytest.mark.parametrize("name", ["bf16", "fp16"])
def test_weights_copied_once_an_update_give_the_bits_of_weights_copied_at_each_use(name: PrecisionName) -> None:
    copied, autocast = Pair(Precision(name, CPU), 32), Pair(Precision(name, CPU), 32)
    for learner in (autocast.step.generator, autocast.step.discriminator):
        learner.copies = {}
        learner.__post_init__()
    assert copied.step.generator.copies
    for _ in range(3):
        found, expected = (pair.step(batch(torch.float32, 32)) for pair in (copied, autocast))
        assert found == expected
    for one, other in ((copied.generator, autocast.generator), (copied.discriminator, autocast.discriminator)):
        assert all(torch.equal(*both) for both in zip(one.parameters(), other.parameters(), strict=True))


def test_a_step_whose_gradients_are_not_finite_changes_no_weight_and_says_so() -> None:
    pair = Pair(Precision("fp32", CPU))
    before = copy.deepcopy(pair.discriminator).requires_grad_(False)
    pixels, first, second, *_ = batch(torch.float32)
    figures = pair.step(Batch(pixels, first.fill_(torch.inf), second))
    assert figures.non_finite > 0
    for one, other in zip(before.parameters(), pair.discriminator.parameters(), strict=True):
        assert torch.equal(one, other)


def test_loss_weight_scales_the_gradients_and_not_the_figures() -> None:
    plain, weighted = Pair(Precision("fp64", CPU)), Pair(Precision("fp64", CPU))
    weighted.step.loss_weight = 2.0
    given = batch(torch.float64)
    fakes = plain.generator(given.first_latents)
    losses = [pair.step._teach_discriminator(given, fakes, 1.0)[0] for pair in (plain, weighted)]
    assert losses[0] == losses[1]
    for one, other in zip(plain.discriminator.parameters(), weighted.discriminator.parameters(), strict=True):
        assert one.grad is not None and other.grad is not None
        torch.testing.assert_close(2 * one.grad, other.grad)


# --- average and pixels -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("images", [1, 10, 125])
def test_after_its_half_life_a_weight_counts_half_at_any_batch_size(images: int) -> None:
    network = Generator(32, LATENT, BASE)
    average = copy.deepcopy(network).requires_grad_(False)
    for parameter in network.parameters():
        nn.init.ones_(parameter)
    for parameter in average.parameters():
        nn.init.zeros_(parameter)
    for _ in range(1000 // images):
        update_average(average, network, images, half_life_images=1000)
    for parameter in average.parameters():
        torch.testing.assert_close(parameter, torch.full_like(parameter, 0.5), rtol=0, atol=1e-4)


@pytest.mark.parametrize("half_life", [37.0, 1000.0])
def test_a_half_life_on_the_device_means_what_it_means_as_a_number(half_life: float) -> None:
    network, *averages = (Generator(32, LATENT, BASE).double().requires_grad_(False) for _ in range(3))
    averages[1].load_state_dict(averages[0].state_dict())
    update_average(averages[0], network, 10, int(half_life))
    update_average(averages[1], network, 10, torch.tensor(half_life, dtype=torch.float64))
    for one, other in zip(averages[0].parameters(), averages[1].parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-15)


def test_moving_by_a_half_life_on_the_device_needs_no_value_on_the_host() -> None:
    network, average = (Generator(32, LATENT, BASE).requires_grad_(False).to("meta") for _ in range(2))
    update_average(average, network, 10, torch.ones((), dtype=torch.float64, device="meta"))


def test_at_a_half_life_of_0_the_average_becomes_the_network() -> None:
    network, average = (Generator(32, LATENT, BASE).requires_grad_(False) for _ in range(2))
    update_average(average, network, 10, torch.zeros((), dtype=torch.float64))
    for one, other in zip(average.parameters(), network.parameters(), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("ranks", [1, 2])  # of two ranks with local batch norm each measures all of it
def test_the_average_takes_no_statistics_of_other_weights_and_measures_its_own(ranks: int) -> None:
    network = Generator(32, LATENT, BASE)
    average = copy.deepcopy(network).requires_grad_(False).eval()
    before = [buffer.clone() for buffer in average.buffers()]
    network(torch.randn(BATCH, LATENT))
    update_average(average, network, 1, half_life_images=1000)
    assert all(torch.equal(one, other) for one, other in zip(average.buffers(), before, strict=True))
    calibrate_batch_norm(average, 0, LATENT, World(0, ranks, 0, ranks, CPU))
    latents = normal(0, "calibration latents", 0, 1024, LATENT, CPU).float()
    inside = average.get_submodule("project.0")(latents[:, :, None, None])
    norm = average.get_submodule("project.1")
    torch.testing.assert_close(norm.running_mean, inside.mean((0, 2, 3)), rtol=0, atol=1e-5)
    torch.testing.assert_close(norm.running_var, inside.var((0, 2, 3)), rtol=0.02, atol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_pixels_to_the_networks_range_and_back(dtype: torch.dtype) -> None:
    pixels = torch.arange(256, dtype=torch.uint8)
    images = to_signed_unit(pixels, dtype)
    assert images.dtype == dtype
    assert (images.min(), images.max()) == (-1, 1)
    assert torch.equal(to_pixels(images), pixels)


def test_what_lies_outside_the_range_is_clamped() -> None:
    assert to_pixels(torch.tensor([-9.0, -1.001, 1.001, 9.0])).tolist() == [0, 0, 255, 255]


def test_gradients_through_a_leaky_unit_are_the_papers() -> None:
    unit = next(m for m in Discriminator(32, BASE, True).modules() if isinstance(m, nn.LeakyReLU))
    torch.testing.assert_close(unit(torch.tensor([-1.0, 2.0])), F.leaky_relu(torch.tensor([-1.0, 2.0]), 0.2))


@pytest.mark.parametrize(("count", "columns"), [(2, None), (7, None), (64, None), (10, 4), (3, 8), (5, 1)])
def test_a_grid_is_laid_out_as_torchvision_does(count: int, columns: int | None) -> None:
    from torchvision.utils import make_grid

    pixels = torch.randint(0, 256, (count, 3, 5, 6), dtype=torch.uint8)
    expected = make_grid(pixels, nrow=columns or math.ceil(math.sqrt(count)), padding=2, pad_value=255)
    assert torch.equal(lay_out(pixels, columns), expected)
