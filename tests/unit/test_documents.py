"""What the documents say of the code is there."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.running import ROOT

PLACES = ("", "dcgan_dist", "tests")
"""Where paths in CONTRIBUTING.md start."""


def test_the_table_of_settings_is_that_of_the_fields() -> None:
    command = [sys.executable, "docs/make_options.py", "--check"]
    assert subprocess.run(command, cwd=ROOT, check=False).returncode == 0, "run python docs/make_options.py"


@pytest.mark.parametrize("document", ["CONTRIBUTING.md", "README.md", "docs/cluster.md"])
def test_every_file_that_a_document_names_exists(document: str) -> None:
    named = set(re.findall(r"`([\w./-]+/[\w.-]+\.(?:py|sh|j2|css|yaml))`", (ROOT / document).read_text()))
    missing = [name for name in named if not any((ROOT / place / name).exists() for place in PLACES)]
    assert not missing
