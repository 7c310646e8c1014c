"""A training that is told of classes, and what generate, evaluate and export make of it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from unittest.mock import patch

import numpy as np
import pytest
import torch
from PIL import Image

from dcgan_dist import evaluate, export, generate
from dcgan_dist.base.errors import UserError
from dcgan_dist.data.classes import classes_of_shards
from dcgan_dist.data.mapped_shards import MappedShards
from dcgan_dist.data.shard_format import read_manifest
from dcgan_dist.distributed.world import World
from dcgan_dist.exporting import load
from dcgan_dist.run.trained import load_trained
from tests.integration.conftest import EQUIVALENCE, GLOBAL_BATCH
from tests.running import (
    Finished,
    assert_same_tensors,
    checkpoints,
    load_checkpoint,
    metric_rows,
    run_module,
    run_train,
)
from tests.url_server import folder_app, serving

STEPS = 12
TOLD = (
    *EQUIVALENCE,
    *("--model.classes", "Smiling,Eyeglasses", "--train.total_images", STEPS * GLOBAL_BATCH),
    *("--checkpoint.every_images", STEPS * GLOBAL_BATCH // 2, "--sample.num_images", 36),
    *("--evaluate.every_images", STEPS * GLOBAL_BATCH, "--evaluate.num_images", 64),
)
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Leaves torch's number of threads as it was: the commands set it."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def trained(shards: Path | str, folder: Path, *settings: object) -> Finished:
    return run_train(1, *TOLD, "--data.shards", shards, "--run.dir", folder, *settings)


@pytest.fixture(scope="module")
def told(shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run on attributes that drawn faces have."""
    folder = tmp_path_factory.mktemp("told") / "run"
    result = trained(shards, folder)
    assert result.returncode == 0, result
    assert "the rows of a grid show: none, Smiling, Eyeglasses" in result.stderr
    return folder


def command(main: object, *words: object) -> None:
    with patch("sys.argv", ["command", *map(str, words)]):
        assert main() == 0  # type: ignore[operator]


def drawn(run: Path, out: Path, *words: object) -> np.ndarray:
    command(generate.main, "--checkpoint", run, "--out", out, "--num-images", 8, *words)
    return np.load(out)["arr_0"].astype(int) if out.suffix == ".npz" else np.asarray(Image.open(out)).astype(int)


def test_a_resumed_run_ends_in_the_same_bits(told: Path, shards: Path, tmp_path: Path) -> None:
    half_way, end = checkpoints(told)
    result = trained(shards, tmp_path / "onward", "--run.resume", half_way)
    assert result.returncode == 0, result
    straight, onward = load_checkpoint(end), load_checkpoint(checkpoints(tmp_path / "onward")[-1])
    for part in ("generator", "discriminator", "ema", "optimizers", "classes"):
        assert_same_tensors(straight[part], onward[part], part)
    assert onward["classes"]["names"] == ["Smiling", "Eyeglasses"]
    assert len(metric_rows(tmp_path / "onward")) == STEPS // 2


def test_generate_draws_the_class_that_is_asked_for(told: Path, tmp_path: Path) -> None:
    smiling, not_smiling, again = (
        drawn(told, tmp_path / f"{number}.npz", "--class", f"Smiling={value}")
        for number, value in enumerate(("1", "0", "1"))
    )
    assert np.array_equal(smiling, again)
    assert all((one != other).any() for one, other in zip(smiling, not_smiling, strict=True))
    as_in_the_data = drawn(told, tmp_path / "plain.npz")
    shown = load_trained(told, CPU).saved.classes["rows"][:8, 0].bool().numpy()  # type: ignore[index]
    assert np.array_equal(as_in_the_data[shown], smiling[shown])
    assert np.array_equal(as_in_the_data[~shown], not_smiling[~shown])


def test_walks_and_sums_are_drawn_of_a_class_too(told: Path, tmp_path: Path) -> None:
    walks = [drawn(told, tmp_path / "walks.png", "--interpolate", *words) for words in ((), ("--class", "Smiling"))]
    assert walks[0].shape == walks[1].shape and (walks[0] != walks[1]).any()
    command(generate.main, "--checkpoint", told, "--out", tmp_path / "sum.png", "--arithmetic-indices", "1,2-3+4")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--class", "Smilin=1"), "no class 'Smilin'; did you mean Smiling[?] there are Smiling, Eyeglasses"),
        (("--class", "Smiling=yes"), "Smiling can be 1 or 0"),
    ],
)
def test_a_class_that_there_is_not_is_told(told: Path, tmp_path: Path, words: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        drawn(told, tmp_path / "x.npz", *words)


def test_a_checkpoint_without_classes_is_not_asked_for_one(finished_run: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"--class Smiling: .*trained without model\.classes"):
        drawn(finished_run, tmp_path / "x.npz", "--class", "Smiling")


def test_evaluate_scores_a_class_by_itself_under_a_protocol_of_its_own(
    told: Path, shards: Path, tmp_path: Path
) -> None:
    words = ("--checkpoint", told, "--metrics", "swd", "--out", tmp_path / "scores.jsonl", "--decoder", "pillow")
    command(evaluate.main, *words, "--num-images", 32)
    command(evaluate.main, *words, "--num-images", 32, "--class", "Smiling=1")
    whole, smiling = (json.loads(line) for line in (tmp_path / "scores.jsonl").read_text().splitlines())
    assert smiling["protocol"]["details"]["class"] == "Smiling=1"
    assert "class" not in whole["protocol"]["details"]
    assert smiling["protocol_key"] != whole["protocol_key"] and smiling["value"] != whole["value"]
    with pytest.raises(UserError, match="real images to compare with"):
        command(evaluate.main, *words, "--num-images", 200, "--class", "Smiling=1")


def test_a_run_scores_images_of_the_classes_that_the_real_ones_have(told: Path) -> None:
    (row,) = [json.loads(line) for line in (told / "scores.jsonl").read_text().splitlines()]
    assert row["metric"] == "swd" and row["value"] > 0


def test_an_exported_generator_takes_conditions(told: Path, tmp_path: Path) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    command(export.main, "--checkpoint", told, "--out", tmp_path / "exported")
    latents = torch.randn(3, 16, generator=torch.Generator().manual_seed(0))
    shown = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    expected = load_trained(told, CPU).generator(torch.cat([latents, shown], dim=1))
    session = onnxruntime.InferenceSession(tmp_path / "exported" / "generator.onnx")
    (images,) = session.run(None, {"latents": latents.numpy(), "conditions": shown.numpy()})
    assert np.abs(images - expected.numpy()).max() <= 1e-4
    assert torch.equal(load(tmp_path / "exported" / "generator.safetensors")(latents, shown), expected)
    card = (tmp_path / "exported" / "README.md").read_text()
    assert "conditions, float32 `[n, 2]`" in card and "Smiling, Eyeglasses." in card


def test_images_packed_from_folders_have_classes(faces: Path, tmp_path: Path) -> None:
    for number, name in enumerate(("cats", "cats", "dogs")):
        (tmp_path / "source" / name).mkdir(parents=True, exist_ok=True)
        source = sorted((faces / "img_align_celeba").iterdir())[number]
        (tmp_path / "source" / name / f"{number}.jpg").write_bytes(source.read_bytes())
    result = run_module("data_prep.images", "--source", tmp_path / "source", "--out", tmp_path / "packed")
    assert result.returncode == 0, result
    packed = MappedShards(tmp_path / "packed", read_manifest(tmp_path / "packed"))
    classes = classes_of_shards(packed, "class", World(0, 1, 0, 1, CPU))
    assert classes and classes.names == ("cats", "dogs")
    assert classes.rows.sum(0).tolist() == [2, 1]


@pytest.mark.parametrize("limit", [None, 0.0016])  # GiB: two tars of four, and the indices
def test_classes_of_shards_behind_a_url_are_those_of_the_local_ones(
    told: Path, shards: Path, tmp_path: Path, limit: float | None
) -> None:
    with serving(folder_app(shards.parent)) as server:
        url = ("--data.cache_dir", tmp_path / "cache", *(("--data.cache_limit_gib", limit) if limit else ()))
        result = trained(f"http://127.0.0.1:{server.port}/{shards.name}", tmp_path / "run", *url)
        assert result.returncode == 0, result
        far, near = (load_checkpoint(checkpoints(run)[-1]) for run in (tmp_path / "run", told))
        for part in ("generator", "discriminator"):
            assert_same_tensors(far[part], near[part], part)
        command(
            evaluate.main,
            "--checkpoint",
            tmp_path / "run",
            "--num-images",
            32,
            "--metrics",
            "swd",
            "--class",
            "Smiling=1",
        )
