"""The generator's weights as safetensors, with all that is needed to build the network again in their metadata."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.base.files import atomic_write
from dcgan_dist.gan.generator import Generator


def save_weights(generator: nn.Module, path: Path, facts: dict[str, Any]) -> None:
    """Writes the weights, and `facts` with keys image_size, latent_size, base_channels and classes in the metadata."""
    from safetensors.torch import save

    weights = {name: tensor.contiguous() for name, tensor in generator.state_dict().items()}
    with atomic_write(path) as file:
        file.write(save(weights, metadata={"format": "pt", "dcgan_dist": json.dumps(facts, sort_keys=True)}))


def load(path: str | Path, device: str | torch.device = "cpu") -> Generator:
    """The generator of an exported generator.safetensors, in evaluation mode, in fp32.

    Takes latents [n, latent_size] from N(0, 1), and if it was trained with classes also conditions [n, classes], 1 or 0
    for each class; returns images [n, 3, image_size, image_size] in [-1, 1]. Raises UserError if the file is missing,
    damaged or none of `dcgan_dist.export`.
    """
    facts = read_facts(path)
    from safetensors.torch import load_file

    try:
        classes = len(facts.get("classes", ()))  # an older file has none
        generator = Generator(facts["image_size"], facts["latent_size"], facts["base_channels"], classes)
        generator.load_state_dict(load_file(path))
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise UserError(f"{path}: is not a generator of dcgan_dist.export ({in_one_line(error, 120)})") from None
    return generator.eval().requires_grad_(False).to(device)


def read_facts(path: str | Path) -> dict[str, Any]:
    """What the metadata of an exported generator.safetensors says. Raises UserError if there is none."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            return json.loads((file.metadata() or {})["dcgan_dist"])
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror or error}); give a generator.safetensors") from None
    except (SafetensorError, KeyError, ValueError) as error:
        raise UserError(f"{path}: is not a generator of dcgan_dist.export ({type(error).__name__})") from None
