"""What bounds the discriminator: a penalty on its gradient at real images, and spectral norm of its weights."""

from __future__ import annotations

import copy
import io
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from dcgan_dist.config import DataConfig, ModelConfig, OptimConfig, TrainConfig, TrainSection
from dcgan_dist.data.loader import BatchPlan
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import (
    Discriminator,
    SpectralConv2d,
    divide_by_singular_values,
    singular_vectors,
    take_power_step,
    use_spectral_norm,
)
from dcgan_dist.gan.images import to_signed_unit
from dcgan_dist.gan.losses import BCE, NOISE_STD, approximate_r1
from dcgan_dist.gan.precision import Precision, PrecisionName
from dcgan_dist.gan.step import Batch
from dcgan_dist.training.by_position import StepInputs
from dcgan_dist.training.engine import EagerUpdate, open_update
from dcgan_dist.training.state import TrainState, initial_state
from tests.given import given_inputs
from tests.saved_checkpoints import saved_at

ALONE = World(0, 1, 0, 1, torch.device("cpu"))
BATCH, SIZE = 6, 32
SWITCHES = {"penalty": {"r1_gamma": 2.0}, "spectral norm": {"spectral_norm": True}, "neither": {}}


def config_with(precision: PrecisionName, r1_gamma: float = 0.0, spectral_norm: bool = False) -> TrainConfig:
    model = ModelConfig(latent_size=8, base_channels=4, spectral_norm=spectral_norm)
    train = TrainSection(precision=precision, r1_gamma=r1_gamma)
    return TrainConfig(data=DataConfig(image_size=SIZE), model=model, train=train)


class Trainer:
    """A state, and steps on pixels that depend on the position alone."""

    def __init__(self, config: TrainConfig) -> None:
        precision = Precision(config.train.precision, ALONE.device)  # type: ignore[arg-type]
        self.state = initial_state(config, ALONE, precision)
        plan = BatchPlan(0, BATCH, BATCH, 0, BATCH, False)
        self.config, self.plan, self.precision = config, plan, precision

    def pixels(self) -> Tensor:
        random = torch.Generator().manual_seed(self.state.images_seen)
        return torch.randint(0, 256, (BATCH, 3, SIZE, SIZE), dtype=torch.uint8, generator=random)

    def inputs(self) -> StepInputs:
        seen = self.state.images_seen
        images, inputs = given_inputs(self.config, self.plan, ALONE, self.precision.weights, seen)
        images.set(self.pixels())
        return inputs

    def batch(self) -> Batch:
        return self.inputs().take()[0]

    def train(self, steps: int) -> TrainState:
        for _ in range(steps):
            open_update(self.config, self.state, self.precision, self.inputs(), self.plan, ALONE)()
            self.state.images_seen += BATCH
        return self.state


def assert_same_bits(one: nn.Module, other: nn.Module) -> None:
    for (name, left), right in zip(one.state_dict().items(), other.state_dict().values(), strict=True):
        assert torch.equal(left, right), name


# --- penalty ----------------------------------------------------------------------------------------------------------


def test_on_average_over_noise_the_penalty_is_half_the_squared_norm_of_the_gradient() -> None:
    torch.manual_seed(0)
    gradient = torch.randn(12, dtype=torch.float64)
    images, noise = torch.randn(2, 20_000, 12, dtype=torch.float64)  # judged by a linear function
    found = approximate_r1(images @ gradient, (images + NOISE_STD * noise) @ gradient)
    torch.testing.assert_close(found, gradient.square().sum() / 2, rtol=0.03, atol=0)


def test_a_step_with_a_penalty_follows_the_gradient_of_plain_passes_one_after_the_other() -> None:
    trainer = Trainer(config_with("fp64", r1_gamma=2.0))
    plain = Discriminator(SIZE, 4, True).double()  # with ordinary batch norm
    plain.load_state_dict(trainer.state.discriminator.state_dict())
    pixels, latents, _, noise, _ = trainer.batch()
    assert noise is not None
    fakes = copy.deepcopy(trainer.state.generator)(latents).detach()
    trainer.train(1)

    images = to_signed_unit(pixels, torch.float64)
    real, noisy, fake = plain(images), plain(images + 0.01 * noise), plain(fakes)
    (BCE.discriminator(real, fake) + 2.0 / 2 * ((noisy - real) / 0.01).square().mean()).backward()
    for ours, theirs in zip(trainer.state.discriminator.parameters(), plain.parameters(), strict=True):
        assert ours.grad is not None and theirs.grad is not None
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-8, atol=1e-8)


def test_the_penalty_is_in_no_figure_and_changes_no_logit_of_its_step() -> None:
    first = []
    for gamma in (0.0, 2.0):
        trainer = Trainer(config_with("fp64", r1_gamma=gamma))
        update = open_update(trainer.config, trainer.state, trainer.precision, trainer.inputs(), trainer.plan, ALONE)
        assert isinstance(update, EagerUpdate)
        figures = update.step(trainer.batch())
        first.append((figures.discriminator_loss, figures.real_probability, figures.fake_probability))
    torch.testing.assert_close(*first, rtol=1e-12, atol=1e-12)


def test_a_penalty_holds_the_gradient_down() -> None:
    norms = []
    for gamma in (0.0, 10.0):
        config = replace(config_with("fp32", r1_gamma=gamma), optim=OptimConfig(discriminator_lr=2e-3))
        trainer = Trainer(config)
        discriminator = trainer.train(20).discriminator.eval()
        images = to_signed_unit(trainer.batch()[0], torch.float32).requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(images).sum(), images)
        norms.append(float(gradient.square().sum((1, 2, 3)).mean()))
    assert norms[1] < 0.25 * norms[0]


# --- spectral norm ----------------------------------------------------------------------------------------------------


def layer_and_torchs() -> tuple[SpectralConv2d, Any]:
    """The same weight under our spectral norm and under torch's, both at the same step of the power method."""
    layer = nn.Conv2d(3, 5, 4, stride=2, padding=1, bias=False).double()
    ours = SpectralConv2d(copy.deepcopy(layer), torch.Generator().manual_seed(0))
    theirs: Any = parametrizations.spectral_norm(layer)
    power = theirs.parametrizations["weight"][0]
    power._u.copy_(ours.left)
    power._v.copy_(nn.functional.normalize(ours.weight.detach().flatten(1).T @ ours.left, dim=0))
    return ours, theirs


def test_spectral_norm_is_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = layer_and_torchs()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    take_power_step(ours)  # torch's takes one in each forward pass of training
    for layer in (ours, theirs):
        layer(images).square().sum().backward()
    torch.testing.assert_close(ours(images), theirs.eval()(images), rtol=1e-12, atol=1e-12)
    original = theirs.parametrizations["weight"].original
    assert ours.weight.grad is not None
    torch.testing.assert_close(ours.weight.grad, original.grad, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize("steps", [0, 300])
def test_the_power_method_finds_the_largest_singular_value(steps: int) -> None:
    torch.manual_seed(0)
    layer = SpectralConv2d(nn.Conv2d(8, 16, 4, bias=False).double(), torch.Generator().manual_seed(0))
    layer.take_power_steps(steps)
    seen = []
    with torch.no_grad():
        layer._layer[0].register_forward_pre_hook(lambda module, _: seen.append(module.weight))
        layer(torch.zeros(1, 8, 4, 4, dtype=torch.float64))
    bound = float(torch.linalg.matrix_norm(seen[0].flatten(1), ord=2))
    assert bound == pytest.approx(1, abs=1e-9 if steps else 0.05)


def test_its_weights_load_into_ordinary_layers_which_then_judge_alike_once_divided() -> None:
    state = Trainer(config_with("fp64", spectral_norm=True)).train(3)
    plain = Discriminator(SIZE, 4, True).double()
    assert list(plain.state_dict()) == list(state.discriminator.state_dict())
    plain.load_state_dict(state.discriminator.state_dict())
    images = torch.rand(4, 3, SIZE, SIZE, dtype=torch.float64) * 2 - 1
    expected = state.discriminator.eval()(images)
    assert not torch.allclose(plain.eval()(images), expected)
    divide_by_singular_values(plain, singular_vectors(state.discriminator))
    torch.testing.assert_close(plain(images), expected, rtol=1e-12, atol=1e-12)


def test_the_first_weights_are_those_without_it_and_every_convolution_has_it() -> None:
    plain, bounded = (initial_state(config_with("fp32", spectral_norm=on), ALONE, Precision("fp32", ALONE.device))
                      for on in (False, True))  # fmt: skip
    assert_same_bits(plain.discriminator, bounded.discriminator)
    assert not singular_vectors(plain.discriminator)
    assert [len(left) for left in singular_vectors(bounded.discriminator).values()] == [4, 8, 16, 1]


def test_each_update_of_the_discriminator_takes_one_step_of_the_power_method() -> None:
    trainer = Trainer(config_with("fp64", spectral_norm=True))
    layer = trainer.state.discriminator.get_submodule("downsample.0.0")
    assert isinstance(layer, SpectralConv2d)
    expected = copy.deepcopy(layer)
    expected.take_power_steps(1)
    trainer.train(1)
    assert torch.equal(layer.left, expected.left)
    assert not torch.equal(layer.weight, expected.weight)


def test_vectors_that_a_checkpoint_lacks_are_found_anew_and_damaged_ones_are_refused() -> None:
    state = Trainer(config_with("fp32", spectral_norm=True)).train(1)
    saved = saved_at(**state.parts())
    with pytest.raises(RuntimeError):
        state.load(
            replace(saved, singular_vectors=dict.fromkeys(singular_vectors(state.discriminator), torch.ones(3))), ALONE
        )
    with pytest.raises(KeyError):
        state.load(replace(saved, singular_vectors={"x": torch.ones(4)}), ALONE)
    other = Trainer(config_with("fp32", spectral_norm=True)).state
    other.load(replace(saved, singular_vectors=None), ALONE)
    for name, left in singular_vectors(other.discriminator).items():
        torch.testing.assert_close(left, singular_vectors(state.discriminator)[name], rtol=0, atol=0.2)


def test_a_network_without_spectral_norm_is_left_alone() -> None:
    network = nn.Sequential(nn.Linear(3, 3))
    use_spectral_norm(network, torch.Generator())
    take_power_step(network)
    assert type(network[0]) is nn.Linear


# --- both -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("switch", SWITCHES)
def test_a_run_that_went_through_a_checkpoint_ends_with_the_same_bits(switch: str) -> None:
    config = config_with("fp32", **SWITCHES[switch])  # type: ignore[arg-type]
    straight = Trainer(config).train(6)
    file = io.BytesIO()
    torch.save(Trainer(config).train(3).parts(), file)
    file.seek(0)
    resumed = Trainer(config)
    resumed.state.load(saved_at(**torch.load(file, weights_only=True)), ALONE)
    resumed.train(3)
    assert_same_bits(straight.generator, resumed.state.generator)
    assert_same_bits(straight.discriminator, resumed.state.discriminator)
    expected, found = (singular_vectors(state.discriminator) for state in (straight, resumed.state))
    assert expected.keys() == found.keys()
    assert all(torch.equal(left, found[name]) for name, left in expected.items())


@pytest.mark.parametrize("switch", ["penalty", "spectral norm"])
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_in_half_precision_steps_stay_finite_and_weights_learn(precision: PrecisionName, switch: str) -> None:
    trainer = Trainer(config_with(precision, **SWITCHES[switch]))  # type: ignore[arg-type]
    before = copy.deepcopy(trainer.state.discriminator)
    state = trainer.train(20)  # fp16 leaves out steps until its scale has come down
    means = state.window.take_means(ALONE)
    assert all(torch.tensor(value).isfinite() for value in means.values()) and means["non_finite"] == 0
    for old, new in zip(before.parameters(), state.discriminator.parameters(), strict=True):
        assert new.isfinite().all() and not torch.equal(old, new)
