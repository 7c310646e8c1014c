"""`python -m dcgan_dist.report` as people use it, and the report that a run leaves behind."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.running import run_module, user_errors


def test_a_run_leaves_its_report(finished_run: Path) -> None:
    page = (finished_run / "report.html").read_text()
    for part in ("1-ranks", ">done<", "train.<wbr>precision", "fp64", "Environment", "Throughput"):
        assert part in page, part
    assert Image.open(finished_run / "report.png").width > 1000
    assert (finished_run / "curves.png").exists()


def test_of_one_run_it_lies_in_the_run(finished_run: Path, tmp_path: Path) -> None:
    run = shutil.copytree(finished_run, tmp_path / "run")
    (run / "report.html").unlink()
    result = run_module("dcgan_dist.report", run)
    assert result.returncode == 0, result
    assert [line.split("  ")[0] for line in result.stdout.splitlines()] == [f"{run}/report.html", f"{run}/report.png"]
    assert (run / "report.html").exists()


def test_several_are_compared_where_it_is_asked(finished_run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(finished_run, tmp_path / "other")
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(config.replace("seed: 0", "seed: 5"))
    (other / "metrics.jsonl").write_text("")  # as if it had only just begun
    result = run_module("dcgan_dist.report", finished_run, other, "--out", tmp_path / "new" / "both.html")
    assert result.returncode == 0, result
    page = (tmp_path / "new" / "both.html").read_text()
    assert "2 runs compared" in page
    assert "run.<wbr>seed" in page[page.index("Settings that differ") :]
    assert (tmp_path / "new" / "both.png").exists()


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["{tmp}/none"], "no such folder"),
        (["{tmp}"], "no run in this folder"),
        (["{tmp}/file"], "no such folder"),
        (["{run}", "{tmp}/none"], "no such folder"),
        (["{run}", "--out", "{tmp}/report.pdf"], "must end in .html"),
        (["{run}", "--out", "{tmp}/file/report.html"], "cannot be written"),
    ],
)
def test_what_cannot_be_reported_is_said_in_one_line(
    finished_run: Path, tmp_path: Path, arguments: list[str], says: str
) -> None:
    (tmp_path / "file").write_text("text")
    result = run_module("dcgan_dist.report", *(word.format(tmp=tmp_path, run=finished_run) for word in arguments))
    assert result.returncode == 2, result
    (line,) = user_errors(result)
    assert says in line
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_said_in_one_line(finished_run: Path, tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    result = run_module("dcgan_dist.report", finished_run, "--out", closed / "report.html")
    assert result.returncode == 2
    assert "cannot be written" in user_errors(result)[0]
