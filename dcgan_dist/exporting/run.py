"""From a checkpoint to a folder of files that others can use, each checked against the checkpoint."""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dcgan_dist.base.errors import RunFailed, UserError
from dcgan_dist.base.files import sync_folder, temporary_name
from dcgan_dist.exporting.card import write_card
from dcgan_dist.exporting.graphs import run_onnx, run_torch_export, save_onnx, save_torch_export
from dcgan_dist.exporting.weights import load, save_weights
from dcgan_dist.gan.generator import Generator
from dcgan_dist.generating.latents import independent
from dcgan_dist.run.trained import Trained, load_trained

LARGEST_DIFFERENCE = 1e-4  # in images of [-1, 1]; a step of 8-bit pixels is 8e-3
CHECKED_BATCHES = (1, 64)

FILES: dict[str, tuple[str, Callable[[Generator, Path, dict[str, Any]], None], Callable[..., Tensor]]] = {
    "safetensors": ("generator.safetensors", save_weights, lambda path, *inputs: load(path)(*inputs)),
    "onnx": ("generator.onnx", save_onnx, run_onnx),
    "torch": ("generator.pt2", save_torch_export, run_torch_export),
}
"""By format: the file's name, what writes it, and what draws from it."""


def run(arguments: argparse.Namespace) -> int:
    """Writes the folder that `arguments` ask for; the exit status.

    Raises UserError for a checkpoint or folder that cannot be used, RunFailed if an exported network draws otherwise.
    """
    out: Path = arguments.out
    if out.name in ("", ".."):
        raise UserError(f"--out {out}: a new folder's name is expected, such as exported/demo")
    trained = load_trained(arguments.checkpoint, torch.device("cpu"), arguments.ema)
    network = "the generator's average" if trained.averaged else "the generator"
    print(f"{trained.path}: {network} after {trained.images_seen} images")
    temporary = temporary_name(out)
    try:
        _prepare_place(out)
        temporary.mkdir()
        differences = _export(trained, arguments.format, temporary, out)
        write_card(trained, temporary, differences)
        temporary.replace(out)
        sync_folder(out.parent)
    except OSError as error:
        raise UserError(f"--out {out}: {error.strerror or error}; choose another place") from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    print(f"{out / 'README.md'}: the model card")
    return 0


def facts_of(trained: Trained) -> dict[str, Any]:
    """Returns the facts stored with the weights: how the network is built and where it comes from."""
    config = trained.config
    return {
        "image_size": config.data.image_size,
        "latent_size": config.model.latent_size,
        "base_channels": config.model.base_channels,
        "classes": list(trained.classes.names) if trained.classes else [],
        "network": "ema" if trained.averaged else "generator",
        "images_seen": trained.images_seen,
        "dataset_fingerprint": trained.saved.dataset_fingerprint,
        "config": config.as_dict(),
    }


def _export(trained: Trained, formats: list[str], folder: Path, out: Path) -> dict[str, float]:
    """Writes and checks every format; by file name the largest difference to the checkpoint."""
    differences = {}
    for name in formats:
        file, save, draw = FILES[name]
        try:
            save(trained.generator, folder / file, facts_of(trained))
            difference = differences[file] = largest_difference(trained, lambda *inputs: draw(folder / file, *inputs))  # noqa: B023
        except ImportError as error:
            raise UserError(
                f"--format {name}: needs {error.name}; pip install -c constraints.txt -e '.[after]', or leave it out"
            ) from None
        if not difference <= LARGEST_DIFFERENCE:
            raise RunFailed(
                f"{file} draws images that differ from the checkpoint's by {difference:.1e}, more than "
                f"{LARGEST_DIFFERENCE:.0e}; nothing is exported"
            )
        print(f"{out / file}: differs from the checkpoint by at most {difference:.1e}")
    return differences


@torch.inference_mode()
def largest_difference(trained: Trained, draw: Callable[..., Tensor]) -> float:
    """Returns the largest difference between images, in [-1, 1], of the checkpoint's generator and of `draw`."""
    worst = 0.0
    for count in CHECKED_BATCHES:
        latents = independent(0, trained.config.model.latent_size)(0, count).float()
        inputs = (latents, trained.classes.rows_in_turn(0, count).float()) if trained.classes else (latents,)
        difference = (draw(*inputs) - trained.generator(*inputs)).abs().max().item()
        worst = max(worst, difference if difference == difference else torch.inf)  # not a number: as bad as can be
    return worst


def _prepare_place(out: Path) -> None:
    if out.exists() and not out.is_dir():
        raise UserError(f"--out {out}: is a file; a folder is expected")
    if out.is_dir() and any(out.iterdir()):
        raise UserError(f"--out {out}: the folder is not empty; choose another, or remove it")
    out.parent.mkdir(parents=True, exist_ok=True)
