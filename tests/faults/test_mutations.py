"""Files damaged at random; `python -m tests.faults --mutations 1000` tries many more."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from dcgan_dist.base.errors import UserError
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.data.shard_format import read_manifest
from tests.faults.lab import Lab
from tests.faults.mutations import Sample, mutate_and_read

MUTATIONS, BUNDLE = 60, 10


@pytest.fixture(scope="module")
def sample(lab: Lab) -> Sample:
    return Sample.make(lab)


@pytest.mark.parametrize("bundle", range(MUTATIONS // BUNDLE))
def test_a_damaged_file_ends_in_one_line_or_in_the_right_result(sample: Sample, bundle: int) -> None:
    chance = random.Random(bundle)
    problems = [mutate_and_read(sample, chance) for _ in range(BUNDLE)]
    assert not [problem for problem in problems if problem]


@pytest.mark.parametrize(
    "text",
    [
        *("run:\n  seed:\n", "data:\n  flip: null\n", "optim:\n  beta1: null\n"),  # left empty
        *("a: 2001-99-99\n", f"run:\n  seed: {'9' * 5000}\n"),  # beyond what Python's readers take
        *("[" * 3000, "run: &a\n  dir: *a\n"),  # without end
    ],
    ids=lambda text: repr(text[:20]),
)
def test_yaml_that_python_cannot_take_in_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(text)
    with pytest.raises(UserError):
        parse_arguments(["--config", str(path)])


def test_a_manifest_nested_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match="cannot be read as JSON"):
        read_manifest(tmp_path)
