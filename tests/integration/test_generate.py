"""dcgan_dist.generate as its user runs it: formats, ranks, pictures, wrong usage."""

from __future__ import annotations

import itertools
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist.base.errors import UserError
from dcgan_dist.distributed.workforce import Workforce
from dcgan_dist.distributed.world import World
from dcgan_dist.generate import build_parser, check
from dcgan_dist.generating.annotations import attribute_labels
from dcgan_dist.generating.images import save_images, save_walks
from dcgan_dist.generating.latents import independent
from dcgan_dist.generating.neighbours import find_nearest
from dcgan_dist.generating.run import run
from dcgan_dist.generating.studio import Studio
from dcgan_dist.run.trained import load_trained
from tests.running import Finished, run_command, run_module, user_errors

ALONE = World(rank=0, size=1, local_rank=0, local_size=1, device=torch.device("cpu"))


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leaves torch's number of threads as it was: the command sets it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def studio(finished_run: Path) -> Studio:
    """The run's networks, in this process."""
    return Studio(load_trained(finished_run, ALONE.device), Workforce.of(ALONE, 2))


def generate(*arguments: object) -> int:
    """The command in this process, on one rank."""
    parsed = build_parser().parse_args([*map(str, arguments)])
    check(parsed)
    return run(parsed)


def generate_on_two_ranks(*arguments: object) -> Finished:
    torchrun = ["torch.distributed.run", "--nproc_per_node", "2", "-m", "dcgan_dist.generate"]
    return run_command([sys.executable, "-m", *torchrun, *map(str, arguments)])


def pixels(path: Path) -> np.ndarray:
    return np.asarray(Image.open(path)).astype(int)


# --- ranks ------------------------------------------------------------------------------------------------------------


def test_two_ranks_write_the_same_bytes_as_one(finished_run: Path, tmp_path: Path) -> None:
    options = ("--checkpoint", finished_run, "--num-images", 131, "--seed", 7, "--out")
    assert generate(*options, tmp_path / "1.npz") == 0
    result = generate_on_two_ranks(*options, tmp_path / "2.npz")
    assert result.returncode == 0, result
    assert result.stdout.count("131 images") == 1
    assert (tmp_path / "1.npz").read_bytes() == (tmp_path / "2.npz").read_bytes()


def test_two_ranks_find_the_same_neighbours_as_one(
    finished_run: Path, shards: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ("--checkpoint", finished_run, "--neighbours", "--num-images", 9, "--shards", shards, "--out")
    assert generate(*options, tmp_path / "1.png") == 0
    alone = [line for line in capsys.readouterr().out.splitlines() if "median" in line]
    result = generate_on_two_ranks(*options, tmp_path / "2.png")
    assert result.returncode == 0, result
    assert [line for line in result.stdout.splitlines() if "median" in line] == alone and len(alone) == 2
    assert (tmp_path / "1.png").read_bytes() == (tmp_path / "2.png").read_bytes()


# --- pictures ---------------------------------------------------------------------------------------------------------


def test_grid_array_and_folder_show_the_same_images(studio: Studio, tmp_path: Path) -> None:
    latents = independent(0, 16)
    for name in ("grid.png", "array.npz", "folder"):
        save_images(studio, latents, 5, tmp_path / name)
    array = np.load(tmp_path / "array.npz")["arr_0"]
    assert sorted(path.name for path in (tmp_path / "folder").iterdir()) == [f"{number:06d}.png" for number in range(5)]
    grid = pixels(tmp_path / "grid.png")
    for number, image in enumerate(array):
        assert (pixels(tmp_path / "folder" / f"{number:06d}.png") == image).all()
        top, left = 2 + number // 3 * 34, 2 + number % 3 * 34
        assert (grid[top : top + 32, left : left + 32] == image).all()


def test_a_walk_changes_little_from_step_to_step(studio: Studio, tmp_path: Path) -> None:
    save_walks(studio, independent(0, 16), 1, 9, tmp_path / "walk.png")
    row = pixels(tmp_path / "walk.png")[2:98, 2:]
    images = [row[:, left : left + 96] for left in range(0, 9 * 98, 98)]
    steps = [np.abs(one - other).mean() for one, other in itertools.pairwise(images)]
    assert max(steps) < 0.5 * np.abs(images[0] - images[-1]).mean()


@pytest.mark.parametrize("suffix", [".gif", ".mp4"])
def test_an_animation_has_its_frames_and_is_the_same_each_time(studio: Studio, tmp_path: Path, suffix: str) -> None:
    import av

    for name in ("one", "two"):
        save_walks(studio, independent(0, 16), 3, 2, tmp_path / (name + suffix))
    assert (tmp_path / f"one{suffix}").read_bytes() == (tmp_path / f"two{suffix}").read_bytes()
    with av.open(str(tmp_path / f"one{suffix}")) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    assert (len(frames), frames[0].size) == (
        8,
        (210, 210),
    )  # 2 steps to each of 4 stops; 2x2 tiles, three times as large


def test_arithmetic_by_picked_images_draws_a_figure(finished_run: Path, tmp_path: Path) -> None:
    out = tmp_path / "sum.png"
    assert generate("--checkpoint", finished_run, "--arithmetic-indices", "1,2 - 3 + 4,5,600", "--out", out) == 0
    assert Image.open(out).width > 7 * 96


# --- the training images ----------------------------------------------------------------------------------------------


def test_a_training_image_is_its_own_nearest_neighbour(studio: Studio, shards: Path) -> None:
    data = studio.training_images(shards, cores=2)
    real = torch.cat(list(studio.real(data, 70, lambda images: images, "")))
    assert len(real) == 70
    nearest = find_nearest(studio, data, real[60:], neighbours=2)
    assert nearest.ids[:, :, 0].tolist() == 2 * [list(range(60, 70))]
    assert nearest.distances[0, :, 0].max() == 0
    assert (nearest.distances[:, :, 1] > 0).all()


def test_a_training_image_is_not_counted_as_its_own_neighbour(studio: Studio, shards: Path) -> None:
    data = studio.training_images(shards, cores=2)
    real = torch.cat(list(studio.real(data, 5, lambda images: images, "")))
    itself, other = find_nearest(studio, data, real, 2), find_nearest(studio, data, real, 1, first_id=0)
    assert torch.equal(other.ids[:, :, 0], itself.ids[:, :, 1])


def test_the_distance_in_pixels_is_the_root_mean_square(studio: Studio, shards: Path) -> None:
    data = studio.training_images(shards, cores=2)
    real = torch.cat(list(studio.real(data, 256, lambda images: images, ""))).double()
    query = real[:1]
    expected = (real[1:] - query).square().mean(dim=(1, 2, 3)).sqrt().min()
    found = find_nearest(studio, data, query.to(torch.uint8), 1, first_id=0).distances[0, 0, 0]
    assert torch.isclose(found, expected)


def test_attributes_are_those_of_the_annotation_file(studio: Studio, faces: Path, shards: Path) -> None:
    data = studio.training_images(shards, cores=1)
    labels = attribute_labels(data.shards, "Smiling", 200)
    lines = (faces / "list_attr_celeba.txt").read_text().splitlines()
    column = lines[1].split().index("Smiling")
    truth = {line.split()[0]: line.split()[1 + column] == "1" for line in lines[2:]}
    keys = [data.shards.name(number).split("image ")[1] for number in range(200)]
    assert labels.tolist() == [truth[f"{key}.jpg"] for key in keys]


def test_an_unknown_attribute_is_named_with_the_nearest_one(studio: Studio, shards: Path) -> None:
    data = studio.training_images(shards, cores=1)
    with pytest.raises(UserError, match="did you mean Smiling"):
        attribute_labels(data.shards, "smiling", 10)


# --- wrong usage ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--out", "a.jpg"), "NAME.png or NAME.npz"),
        (("--out", "a.gif"), "add --interpolate"),
        (("--out", "a.npz", "--interpolate"), "NAME.gif"),
        (("--out", "a.png", "--steps", "5"), "--steps 5"),
        (("--out", "a.png", "--num-images", "10001"), "at most 10000"),
        (("--out", "a.png", "--shards", "data"), "--shards"),
        (("--out", "a.png", "--arithmetic-indices", "1-2+3", "--num-images", "2"), "one row"),
    ],
)
def test_options_that_do_not_fit_are_refused_in_a_line(arguments: tuple[str, ...], said: str) -> None:
    with pytest.raises(UserError, match=said):
        check(build_parser().parse_args(["--checkpoint", "x", *arguments]))


@pytest.mark.parametrize(
    "arguments",
    [
        ("--num-images", "0"),
        ("--num-images", "-3"),
        ("--num-images", "many"),
        ("--seed", "-1"),
        ("--truncation", "0"),
        ("--truncation", "nan"),
        ("--steps", "1"),
        ("--interpolate", "--neighbours"),
        ("--chekpoint", "x"),
    ],
)
def test_impossible_values_end_with_status_2(arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        build_parser().parse_args(["--checkpoint", "x", "--out", "a.png", *arguments])
    assert ended.value.code == 2
    assert "error:" in capsys.readouterr().err


def test_two_ranks_say_once_what_is_wrong(tmp_path: Path) -> None:
    result = generate_on_two_ranks("--checkpoint", tmp_path, "--out", tmp_path / "a.png")
    assert result.returncode != 0
    assert len(user_errors(result)) == 1 and "no checkpoint there" in user_errors(result)[0]
    assert list(tmp_path.iterdir()) == []


def test_places_that_cannot_be_written_are_refused_before_work(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "old.png").touch()
    (tmp_path / "x.png").mkdir()
    for name, said in (("full", "not empty"), ("x.png", "is a folder"), ("full/old.png/b.png", "old.png")):
        with pytest.raises(UserError, match=said):
            generate("--checkpoint", finished_run, "--out", tmp_path / name)


def test_a_damaged_checkpoint_is_named(finished_run: Path, tmp_path: Path) -> None:
    damaged = tmp_path / "damaged.pt"
    shutil.copy(next((finished_run / "checkpoints").glob("*.pt")), damaged)
    content = bytearray(damaged.read_bytes())
    content[len(content) // 2] ^= 1
    damaged.write_bytes(content)
    with pytest.raises(UserError, match="damaged"):
        generate("--checkpoint", damaged, "--out", tmp_path / "a.png")


@pytest.mark.parametrize("module", ["generate", "export"])
def test_help_needs_no_heavy_library(module: str) -> None:
    heavy = ("torch", "numpy", "PIL", "matplotlib", "av", "onnx", "jinja2", "rich")
    program = f"import sys, dcgan_dist.{module}; print(*[name for name in {heavy} if name in sys.modules])"
    assert run_command([sys.executable, "-c", program]).stdout.split() == []
    assert run_module(f"dcgan_dist.{module}", "--help").returncode == 0
