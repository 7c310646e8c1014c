"""The files in configs/: each is a run that could start."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.config import TrainConfig
from dcgan_dist.gan.discriminator import Discriminator
from dcgan_dist.gan.generator import Generator
from tests.running import ROOT

FILES = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_promised_ones_are_there() -> None:
    promised = {"celeba64", "celeba128", "demo", "celeba64_large_batch", "celeba64_best", "celeba128_best"}
    assert promised <= {path.stem for path in FILES}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_loads_and_says_what_it_costs(path: Path) -> None:
    config = parse_arguments(["--config", str(path)])
    assert isinstance(config, TrainConfig)
    assert config.run.name == path.stem.removesuffix("_gpu")
    assert path.read_text().startswith("# ")


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_says_only_what_is_not_the_default_or_who_it_is(path: Path) -> None:
    defaults = TrainConfig().as_dict()
    if path.stem != "celeba64":  # which is the defaults, written out
        for section, fields in yaml.safe_load(path.read_text()).items():
            same = {f"{section}.{name}" for name, value in fields.items() if defaults[section][name] == value}
            assert same <= {"data.shards", "data.image_size"}


@pytest.mark.parametrize("name", ["celeba64", "celeba128"])
def test_the_weights_it_says_it_has_are_those_of_the_networks(name: str) -> None:
    path = ROOT / "configs" / f"{name}.yaml"
    config = parse_arguments(["--config", str(path)])
    size, channels = config.data.image_size, config.model.base_channels
    networks = Generator(size, config.model.latent_size, channels), Discriminator(size, channels, True)
    counted = [f"{sum(weight.numel() for weight in network.parameters()) / 1e6:.1f}" for network in networks]
    said = re.search(r"([\d.]+) million weights in the generator and ([\d.]+) million", path.read_text())
    assert said and list(said.groups()) == counted
