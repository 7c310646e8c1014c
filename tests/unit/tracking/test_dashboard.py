"""The layout of the W&B workspace, without a server."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.running import ROOT, run_command, run_module, user_errors

pytest.importorskip("wandb_workspaces")


def panels_of(specification: dict[str, Any]) -> dict[str, list[dict[str, Any]]]:
    sections = specification["spec"]["section"]["panelBankConfig"]["sections"]
    return {section["name"]: [panel["config"] for panel in section["panels"]] for section in sections}


def test_the_dry_run_prints_a_workspace_of_figures_that_runs_do_log() -> None:
    result = run_module("dcgan_dist.dashboard", "--dry-run", "--entity", "me", "--project", "faces")
    assert result.returncode == 0, result
    specification = json.loads(result.stdout)
    assert (specification["entity"], specification["project"]) == ("me", "faces")
    panels = panels_of(specification)
    assert list(panels) == ["Samples", "Training", "Quality", "Speed", "Events"]
    assert ["samples/fixed_latents_ema"] in [panel["mediaKeys"] for panel in panels["Samples"]]
    code = "".join(path.read_text() for path in (ROOT / "dcgan_dist").rglob("*.py") if path.name != "dashboard.py")
    for panel in panels["Training"] + panels["Speed"] + panels["Events"]:
        assert panel["xAxis"] == "images_seen"
        for figure in panel["metrics"]:
            assert re.search(f'"{figure}"', code), f"{figure} is logged nowhere"


def test_without_a_key_it_says_so_in_one_line(tmp_path: Path) -> None:
    result = run_command(
        [sys.executable, "-m", "dcgan_dist.dashboard"], env={"NETRC": str(tmp_path / "none"), "HOME": str(tmp_path)}
    )
    assert result.returncode == 2
    assert user_errors(result) == [
        "error: no W&B API key found; run wandb login, set WANDB_API_KEY, or look at it with --dry-run"
    ]


@pytest.mark.parametrize("wrong", [("--project", "me/faces"), ("--entity", " "), ("--nonsense",), ("extra",)])
def test_wrong_arguments_are_refused(wrong: tuple[str, ...]) -> None:
    result = run_module("dcgan_dist.dashboard", "--dry-run", *wrong)
    assert result.returncode == 2
    assert "Traceback" not in result.stderr
