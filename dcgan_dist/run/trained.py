"""What training left behind, read back for use: the networks of a checkpoint, without the training around them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.config import TrainConfig
from dcgan_dist.data.classes import Classes
from dcgan_dist.distributed.world import World
from dcgan_dist.gan.discriminator import Discriminator, divide_by_singular_values
from dcgan_dist.gan.generator import Generator
from dcgan_dist.gan.images import to_pixels
from dcgan_dist.run.checkpoint import load, read_verified
from dcgan_dist.run.retention import newest_first
from dcgan_dist.run.saved import Saved


@dataclass(frozen=True)
class Trained:
    """The networks of one checkpoint, in evaluation mode on one device, weights in fp32."""

    path: Path
    config: TrainConfig
    images_seen: int
    generator: Generator
    averaged: bool
    """Whether `generator` is the moving average (EMA) or the network of the last step."""
    discriminator: Discriminator
    saved: Saved
    """The whole checkpoint: seed, dataset_fingerprint, global_batch, tracker_ids, ..."""

    @property
    def classes(self) -> Classes | None:
        """The classes that the networks are told of, and what typical images show of them."""
        return Classes.from_dict(self.saved.classes) if self.saved.classes else None

    def wanted(self, text: str) -> Tensor:
        """What `--class` asks for: see `Classes.wanted`. Raises UserError if it cannot be had."""
        if self.classes is None:
            raise UserError(f"--class {text}: {self.path} was trained without model.classes; leave it out")
        return self.classes.wanted(text)

    @torch.inference_mode()
    def draw(self, latents: Tensor) -> Tensor:
        """Latents [n, latent_size + classes] become images, uint8 [n, 3, image_size, image_size], each by itself."""
        device = next(self.generator.parameters()).device
        return to_pixels(self.generator(latents.to(device, torch.float32)))


def load_trained(path: Path, device: torch.device, ema: bool | None = None) -> Trained:
    """The networks in a checkpoint file, or in the newest good checkpoint of a run folder.

    `ema`: the generator's average (True), the generator itself (False), or the average if there is one (None).
    Raises UserError if there is no such file, it is damaged, or it holds no average and one is asked for.
    """
    return _build(*_read(path), device, ema)


def load_on_every_rank(path: Path, world: World, ema: bool | None = None) -> Trained:
    """Like `load_trained`, but rank 0 reads the file for all: the newest one changes while a run trains."""
    file, content = world.broadcast_object(world.on_main(_read, path))
    return world.together(_build, file, content, world.device, ema)


def _build(file: Path, content: bytes, device: torch.device, ema: bool | None) -> Trained:
    saved = load(content)
    if ema and not saved.ema:
        raise UserError(f"{file}: holds no moving average (ema.half_life_images was 0); use --no-ema")
    averaged = bool(saved.ema) and ema is not False
    try:
        config = TrainConfig.from_dict(saved.config)
        size, width = config.data.image_size, config.model.base_channels
        classes = len(Classes.from_dict(saved.classes)) if saved.classes else 0
        generator = Generator(size, config.model.latent_size, width, classes)
        discriminator = Discriminator(size, width, config.model.discriminator_input_norm, classes)
        generator.load_state_dict(saved.ema if averaged and saved.ema else saved.generator)
        discriminator.load_state_dict(saved.discriminator)
        divide_by_singular_values(discriminator, saved.singular_vectors or {})
    except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
        reason = in_one_line(error, 160)
        raise UserError(f"{file}: its networks do not fit its configuration ({reason}); use another one") from None
    for network in (generator, discriminator):
        network.eval().requires_grad_(False).to(device)
    return Trained(file, config, saved.images_seen, generator, averaged, discriminator, saved)


def _read(path: Path) -> tuple[Path, bytes]:
    """Reads a verified checkpoint file, or the newest good one of a folder."""
    try:
        if path.is_file():
            return path, read_verified(path)
        folder = path / "checkpoints" if (path / "checkpoints").is_dir() else path
        files = newest_first(folder)
    except OSError as error:  # a name too long, a folder that is closed
        raise UserError(
            f"{path}: cannot be read ({error.strerror}); give a checkpoint or the folder of a run"
        ) from None
    problems = []
    for file in files:
        try:
            return file, read_verified(file)
        except UserError as error:
            problems.append(str(error))
    raise UserError(
        problems[0] if problems else f"{path}: no checkpoint there; give a .pt file of a run's checkpoints/, or its run"
    )
