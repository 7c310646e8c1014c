"""Parts of dcgan_dist.generate: latents, chunks, outputs, the probe, picked groups, nearest images."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dcgan_dist.base.errors import UserError
from dcgan_dist.config import DataConfig, TrainConfig
from dcgan_dist.data.classes import Classes
from dcgan_dist.distributed.workforce import CHUNK, Workforce
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from dcgan_dist.generating import arithmetic
from dcgan_dist.generating.arithmetic import CASES, groups_with_attribute, parse_groups, pick_cases, save_arithmetic
from dcgan_dist.generating.features import discriminator_features
from dcgan_dist.generating.latents import (
    frames_of_loops,
    independent,
    listed,
    noise_around,
    picked,
    rows_of_walks,
    slerp,
    with_classes,
)
from dcgan_dist.generating.outputs import npz_file, png_folder, save
from dcgan_dist.generating.probe import balanced_accuracy, fit_probe
from dcgan_dist.generating.studio import Studio
from dcgan_dist.run.trained import Trained
from tests.saved_checkpoints import saved_at

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leaves torch's number of threads as it was: a Workforce sets it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


# --- latents ----------------------------------------------------------------------------------------------------------


def test_conditions_go_evenly_from_one_end_of_a_walk_to_the_other_and_do_not_turn_its_latents() -> None:
    shown = Classes(("Smiling", "Male"), False, torch.tensor([[0, 1], [1, 1]], dtype=torch.uint8))
    latents, told = independent(seed=3, size=7), with_classes(independent(seed=3, size=7), shown)
    row = rows_of_walks(told, 5, 7)(0, 5)
    assert torch.equal(row[:, :7], rows_of_walks(latents, 5)(0, 5))
    assert row[:, 7].tolist() == [0, 0.25, 0.5, 0.75, 1] and row[:, 8].tolist() == [1] * 5
    frames = frames_of_loops(told, 2, 4, 3, 7)(0, 24)
    assert torch.equal(frames[:, :7], frames_of_loops(latents, 2, 4, 3)(0, 24))


def test_a_latent_is_the_same_alone_and_among_others() -> None:
    latents = independent(seed=3, size=7)
    assert torch.equal(latents(0, 200)[130:135], latents(130, 5))
    assert torch.equal(picked(latents, [130, 4, 130]), latents(0, 200)[[130, 4, 130]])


def test_a_walk_starts_and_ends_at_its_latents() -> None:
    start, end = independent(0, 50)(0, 2).split(1)
    assert torch.allclose(slerp(start, end, torch.tensor([0.0])), start)
    assert torch.allclose(slerp(start, end, torch.tensor([1.0])), end)


def test_a_walk_keeps_to_the_shell_where_gaussian_latents_are() -> None:
    latents = independent(0, 100)(0, 20)
    middle = slerp(latents[:10], latents[10:], torch.full((10,), 0.5))
    assert middle.norm(dim=1).min() > 0.85 * math.sqrt(100)  # a straight line would be at 0.7


def test_a_walk_between_equal_latents_stays_there() -> None:
    latent = independent(0, 10)(0, 1)
    assert torch.allclose(slerp(latent, latent, torch.tensor([0.3])), latent)


def test_rows_of_walks_go_from_latent_to_latent_in_even_steps() -> None:
    latents = independent(1, 30)
    rows = rows_of_walks(latents, steps=5)(0, 10).view(2, 5, 30)
    assert torch.allclose(rows[:, [0, 4]], latents(0, 4).view(2, 2, 30))
    steps = torch.cosine_similarity(rows[:, 1:], rows[:, :-1], dim=2).acos()
    assert torch.allclose(steps, steps[:, :1].expand_as(steps), atol=1e-6)


def test_an_animation_ends_where_it_began() -> None:
    frames = frames_of_loops(independent(1, 30), tiles=3, steps=4, stops=2)
    assert torch.allclose(frames(0, 3), frames(3 * 4 * 2, 3))
    assert not torch.allclose(frames(0, 3), frames(3 * 4, 3))


def test_truncation_bounds_latents_and_keeps_their_distribution() -> None:
    latents = independent(0, 100, truncation=1.0)(0, 1000).flatten()
    assert latents.abs().max() <= 1
    # Standard deviation of a normal distribution cut off at -1 and 1.
    density, inside = math.exp(-0.5) / math.sqrt(2 * math.pi), math.erf(1 / math.sqrt(2))
    assert math.isclose(latents.std().item(), math.sqrt(1 - 2 * density / inside), rel_tol=0.01)


@pytest.mark.parametrize("limit", [1e-6, 40.0])
def test_extreme_truncation_gives_finite_latents(limit: float) -> None:
    assert independent(0, 100, truncation=limit)(0, 100).isfinite().all()


def test_noise_around_a_sum_is_as_large_as_in_the_paper() -> None:
    noise = noise_around(torch.zeros(100), seed=0, first=0, count=50, scale=0.25)
    assert noise.abs().max() <= 0.25
    assert math.isclose(noise.std().item(), 0.5 / math.sqrt(12), rel_tol=0.03)


# --- chunks -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("num_items", [1, CHUNK, CHUNK + 1, 5 * CHUNK - 3])
@pytest.mark.parametrize("workers", [1, 3])
def test_chunks_come_in_order_and_complete(num_items: int, workers: int) -> None:
    workforce = Workforce(ALONE, workers)
    portions = workforce.in_order(
        num_items, workforce.chunk_starts(num_items), lambda first: torch.arange(first, first + CHUNK)
    )
    assert torch.cat(list(portions)).tolist() == list(range(num_items))


def test_the_bits_of_an_image_depend_on_nothing_but_its_latent() -> None:
    generator = Generator(32, 16, 8).eval()
    latents = independent(0, 16)

    @torch.inference_mode()
    def draw(first: int) -> Tensor:
        return generator(latents(first, CHUNK).float())

    def drawn(count: int, cores: int) -> Tensor:
        workforce = Workforce.of(ALONE, cores)
        return torch.cat(list(workforce.in_order(count, workforce.chunk_starts(count), draw)))

    many = drawn(150, cores=3)
    torch.set_num_threads(4)
    assert torch.equal(many, drawn(150, cores=1))
    assert torch.equal(many[:3], drawn(3, cores=2))


# --- outputs ----------------------------------------------------------------------------------------------------------


def portions_of(count: int) -> Iterator[Tensor]:
    images = torch.arange(count * 3 * 32 * 32).remainder(251).to(torch.uint8).view(count, 3, 32, 32)
    return iter(images.split(3))


def test_an_array_is_what_tools_for_fid_read(tmp_path: Path) -> None:
    save(portions_of(8), npz_file(tmp_path / "a.npz", 8, 32), ALONE)
    array = np.load(tmp_path / "a.npz")["arr_0"]
    assert (array.shape, array.dtype) == ((8, 32, 32, 3), np.uint8)
    assert (array == torch.cat(list(portions_of(8))).permute(0, 2, 3, 1).numpy()).all()


@pytest.mark.parametrize("name", ["a.npz", "folder"])
def test_an_output_that_fails_half_way_leaves_nothing(tmp_path: Path, name: str) -> None:
    def failing() -> Iterator[Tensor]:
        yield next(portions_of(8))
        raise UserError("the disk is full")

    output = npz_file(tmp_path / name, 8, 32) if name == "a.npz" else png_folder(tmp_path / name)
    with pytest.raises(UserError, match="full"):
        save(failing(), output, ALONE)
    assert list(tmp_path.iterdir()) == []


# --- probe and groups -------------------------------------------------------------------------------------------------


def test_features_are_every_layers_maps_pooled_to_four_by_four() -> None:
    features = discriminator_features(Discriminator(32, 8, True).eval(), torch.zeros(2, 3, 32, 32, dtype=torch.uint8))
    assert features.shape == (2, (8 + 16 + 32) * 16)


def test_a_probe_finds_a_rare_direction_and_judges_unseen_examples() -> None:
    torch.manual_seed(0)
    inputs = torch.randn(1200, 40) * 3 + 5
    shows = inputs[:, 3] + 0.5 * inputs[:, 7] > 13  # about one in twelve
    probe = fit_probe(inputs[:900], shows[:900])
    assert balanced_accuracy(probe, inputs[900:], shows[900:]) > 0.9


def test_a_probe_of_nothing_is_at_chance() -> None:
    torch.manual_seed(0)
    inputs, shows = torch.randn(600, 20), torch.rand(600) > 0.5
    assert balanced_accuracy(fit_probe(inputs[:300], shows[:300]), inputs[300:], shows[300:]) < 0.6


def test_groups_are_of_images_that_show_the_attribute_and_that_do_not() -> None:
    margins = torch.linspace(-1, 1, 400)
    cases = pick_cases(margins, "Smiling", seed=0)
    assert len(cases) == CASES
    for first, second, third in cases:
        assert min(margins[first]) > 0 > max(*margins[second], *margins[third])
        assert len({*first}) == len({*second}) == len({*third}) == 3
    assert pick_cases(margins, "Smiling", seed=1) != cases


def test_the_third_group_has_no_image_of_the_second() -> None:
    for _, second, third in pick_cases(torch.tensor(394 * [1.0] + 6 * [-1.0]), "Smiling", seed=0):
        assert sorted(second + third) == list(range(394, 400))


@pytest.mark.parametrize(("shows", "lacks"), [(2, 398), (395, 5)])
def test_an_attribute_that_is_hardly_drawn_or_hardly_missing_is_refused(shows: int, lacks: int) -> None:
    with pytest.raises(UserError, match=f"{shows} show it and {lacks} do not"):
        pick_cases(torch.tensor(shows * [1.0] + lacks * [-1.0]), "Bald", seed=0)


class Lamp(nn.Module):
    """A generator of plain images, as bright as their latent's first number says."""

    def __init__(self) -> None:
        super().__init__()
        self.dimmer = nn.Parameter(torch.tensor(0.5))

    def forward(self, latents: Tensor) -> Tensor:
        return (self.dimmer * latents[:, :1, None, None]).tanh().expand(-1, 3, 32, 32)


def test_an_attribute_is_moved_by_the_difference_of_two_groups(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    real = torch.randint(0, 256, (400, 1, 1, 1), dtype=torch.uint8).expand(-1, 32, 32, 3)
    data: Any = SimpleNamespace(
        manifest=SimpleNamespace(samples=len(real)),
        shards=SimpleNamespace(folder=Path("shards")),
        decode=lambda batches: (real[list(batch)] for batch in batches),
    )
    monkeypatch.setattr(arithmetic, "attribute_labels", lambda *_: real[:, 0, 0, 0] > 160)
    generator: Any = Lamp()
    config = TrainConfig(data=DataConfig(image_size=32))
    trained = Trained(Path("x.pt"), config, 1, generator, True, Discriminator(32, 8, True).eval(), saved_at(1))
    studio, latents = Studio(trained, Workforce.of(ALONE, 2)), independent(0, 16)

    rows = groups_with_attribute(studio, data, "Bright", latents, seed=0, num_rows=2)
    (counts,) = re.findall(r"in (\d+) cases, it shows in (\d+) of them and did in (\d+)", capsys.readouterr().out)
    cases, shown, before = map(int, counts)
    assert (cases, before) == (CASES, 0)
    assert shown > 0.9 * CASES

    save_arithmetic(studio, latents, rows, ("Bright", "without", "without"), 0, tmp_path / "sum.png")
    picture = Image.open(tmp_path / "sum.png").convert("L")
    first, mean_of_third, total = (picture.getpixel(place) for place in ((56, 78), (356, 403), (606, 303)))
    assert min(first, total) > 160 > mean_of_third  # type: ignore[type-var, operator]


def test_groups_are_read_as_they_are_written_in_the_paper() -> None:
    assert parse_groups(" 1,2 ,3- 4 + 7, 8") == ([1, 2, 3], [4], [7, 8])


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1 - 2", "1 + 2 - 3", "1 - 2 + x", "1 - 2 + ", "1 - -2 + 3", "1 - 2 + ²"]
)
def test_groups_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="arithmetic-indices"):
        parse_groups(text)


def test_a_table_of_latents_is_filled_up_with_zeros() -> None:
    table = torch.ones(3, 2)
    assert listed(table)(2, 3).tolist() == [[1, 1], [0, 0], [0, 0]]
