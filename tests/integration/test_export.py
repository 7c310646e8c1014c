"""dcgan_dist.export as its user runs it: the files load in a fresh process and draw what the checkpoint draws."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.base.files import append_row
from dcgan_dist.export import build_parser
from dcgan_dist.exporting import load
from dcgan_dist.exporting.run import largest_difference, run
from dcgan_dist.exporting.weights import read_facts
from dcgan_dist.run.trained import load_trained
from tests.running import run_command, run_module, user_errors

LATENT_SIZE = 16

# As on the model card, and with nothing of this package where it says so.
ONNX = """import numpy, onnxruntime, sys
network = onnxruntime.InferenceSession("generator.onnx")
images = network.run(None, {"latents": numpy.load("latents.npy")})[0]
assert "torch" not in sys.modules and "dcgan_dist" not in sys.modules
numpy.save("images.npy", images)"""
TORCH = """import torch, numpy, sys
network = torch.export.load("generator.pt2").module()
images = network(torch.from_numpy(numpy.load("latents.npy")))
assert "dcgan_dist" not in sys.modules
numpy.save("images.npy", images.detach().numpy())"""
SAFETENSORS = """import torch, numpy
from dcgan_dist.exporting import load
images = load("generator.safetensors")(torch.from_numpy(numpy.load("latents.npy")))
numpy.save("images.npy", images.numpy())"""


@pytest.fixture(scope="module")
def exported(finished_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exported") / "generator"
    result = run_module("dcgan_dist.export", "--checkpoint", finished_run, "--out", folder)
    assert result.returncode == 0, result
    assert result.stdout.count("differs from the checkpoint by at most") == 3
    return folder


@pytest.mark.parametrize("program", [ONNX, TORCH, SAFETENSORS], ids=["onnx", "torch", "safetensors"])
def test_a_fresh_process_draws_what_the_checkpoint_draws(
    exported: Path, finished_run: Path, tmp_path: Path, program: str
) -> None:
    import numpy as np

    latents = torch.randn(5, LATENT_SIZE, generator=torch.Generator().manual_seed(0))
    for file in exported.iterdir():
        (tmp_path / file.name).symlink_to(file)
    np.save(tmp_path / "latents.npy", latents.numpy())
    result = run_command([sys.executable, "-c", f"import os; os.chdir({str(tmp_path)!r})\n{program}"])
    assert result.returncode == 0, result
    expected = load_trained(finished_run, torch.device("cpu")).generator(latents)
    assert np.abs(np.load(tmp_path / "images.npy") - expected.numpy()).max() <= 1e-4


def test_the_weights_carry_their_configuration(exported: Path, finished_run: Path) -> None:
    trained = load_trained(finished_run, torch.device("cpu"))
    facts = read_facts(exported / "generator.safetensors")
    assert facts["config"] == json.loads(json.dumps(trained.config.as_dict()))
    assert facts["images_seen"] == trained.images_seen
    for name, weight in load(exported / "generator.safetensors").state_dict().items():
        assert torch.equal(weight, trained.generator.state_dict()[name])


def test_the_card_tells_recipe_and_licence_and_its_pictures_are_there(exported: Path) -> None:
    card = (exported / "README.md").read_text()
    assert "drawn faces (data_prep.synthetic), split `all`" in card and "no real person" in card
    assert "Not measured" in card
    for picture in ("samples.png", "curves.png"):
        assert f"({picture})" in card and (exported / picture).stat().st_size > 0


def test_the_card_has_the_scores_of_this_checkpoint_alone(finished_run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "run" / "checkpoints"
    copy.mkdir(parents=True)
    newest = sorted((finished_run / "checkpoints").glob("*.pt"))[-1]
    (copy / newest.name).symlink_to(newest)
    row = {"images_seen": int(newest.stem), "metric": "swd", "value": 12.25, "floor": 3.5, "protocol_key": "abc"}
    row |= {"protocol": {"num_images": 100}, "network": "ema"}
    for changes in ({}, {"value": 98.75, "images_seen": 1}, {"value": 97.75, "network": "generator"}):
        append_row(tmp_path / "run" / "scores.jsonl", row | changes)
    # A run that was copied elsewhere is found by where its checkpoint lies now, so the link must not be followed.
    assert export(copy.parent, tmp_path / "out", "safetensors") == 0
    card = (tmp_path / "out" / "README.md").read_text()
    assert "12.25" in card and "98.75" not in card and "97.75" not in card


def test_a_network_that_draws_otherwise_is_noticed(finished_run: Path) -> None:
    trained = load_trained(finished_run, torch.device("cpu"))
    assert largest_difference(trained, trained.generator) == 0
    assert largest_difference(trained, lambda latents: trained.generator(latents) + 2e-4) > 1e-4
    assert largest_difference(trained, lambda latents: trained.generator(latents) * torch.nan) == torch.inf


def test_a_network_that_draws_otherwise_is_not_exported(
    finished_run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def spoil(generator: nn.Module, path: Path, facts: dict[str, object]) -> None:
        save_weights(generator, path, facts)
        for weight in generator.parameters():
            weight.mul_(1.01)

    from dcgan_dist.exporting import run as exporting
    from dcgan_dist.exporting.weights import save_weights

    name, _, draw = exporting.FILES["safetensors"]
    monkeypatch.setitem(exporting.FILES, "safetensors", (name, spoil, draw))
    with pytest.raises(RunFailed, match="nothing is exported"):
        export(finished_run, tmp_path / "out", "safetensors")
    assert list(tmp_path.iterdir()) == []


def test_wrong_places_and_files_are_told_in_a_line(finished_run: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no weights")
    with pytest.raises(UserError, match="is a file"):
        export(finished_run, tmp_path / "file", "safetensors")
    with pytest.raises(UserError, match="not empty"):
        export(finished_run, tmp_path, "safetensors")
    for name in (".", "..", "/"):
        with pytest.raises(UserError, match="a new folder's name is expected"):
            export(finished_run, Path(name), "safetensors")
    with pytest.raises(UserError, match="no checkpoint there"):
        export(tmp_path / "nowhere", tmp_path / "out", "safetensors")
    with pytest.raises(UserError, match="cannot be read"):
        export(tmp_path / ("x" * 300), tmp_path / "out", "safetensors")
    for path, said in ((tmp_path / "file", "is not a generator"), (tmp_path / "none", "cannot be read")):
        with pytest.raises(UserError, match=said):
            load(path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_an_unknown_format_ends_with_status_2(tmp_path: Path) -> None:
    result = run_module("dcgan_dist.export", "--checkpoint", tmp_path, "--out", tmp_path / "x", "--format", "h5")
    assert result.returncode == 2 and "safetensors" in result.stderr
    result = run_module("dcgan_dist.export", "--checkpoint", tmp_path, "--out", tmp_path / "x")
    assert result.returncode == 2 and len(user_errors(result)) == 1


def export(checkpoint: Path, out: Path, *formats: str) -> int:
    arguments = ["--checkpoint", str(checkpoint), "--out", str(out), "--format", *formats]
    return run(build_parser().parse_args(arguments))
