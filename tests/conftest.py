"""Data that many tests train on, made once by the project's own commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.running import run_module


@pytest.fixture(scope="session")
def faces(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """256 drawn faces in CelebA's layout."""
    folder = tmp_path_factory.mktemp("drawn") / "faces"
    result = run_module("data_prep.synthetic", "--out", folder, "--num-images", 256, "--seed", 0)
    assert result.returncode == 0, result
    return folder


@pytest.fixture(scope="session")
def shards(faces: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same faces in four shards. Tests that change them take a copy."""
    folder = tmp_path_factory.mktemp("packed") / "faces-all"
    options = ("--split", "all", "--samples-per-shard", 64)
    result = run_module("data_prep.celeba", "--source", faces, "--out", folder, *options)
    assert result.returncode == 0, result
    return folder
