"""One lab for the whole session, so that the undisturbed run is trained once."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from tests.faults.lab import Lab


@pytest.fixture(scope="session")
def lab(faces: Path, shards: Path, tmp_path_factory: pytest.TempPathFactory) -> Lab:
    """A place to disturb runs in, always at the same moments."""
    return Lab(tmp_path_factory.mktemp("faults"), faces, shards, random.Random(0))
