"""Settings that there were once: runs that name them go on, and are told."""

from __future__ import annotations

from pathlib import Path

import pytest

from dcgan_dist.base.errors import UserError
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.command_line.yaml_settings import REMOVED


@pytest.mark.parametrize("key", REMOVED)
def test_on_the_command_line_a_removed_setting_is_passed_over_with_a_line(
    key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for words in ([f"--{key}", "true"], [f"--{key}=true"]):
        config = parse_arguments(["--run.seed", "3", *words, "--data.flip", "true"])
        assert (config.run.seed, config.data.flip) == (3, True)
        (line,) = capsys.readouterr().err.splitlines()
        assert line == f"note: {key} was removed and is passed over ({REMOVED[key]}); delete it"


def test_a_file_of_before_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "config.yaml"
    file.write_text("run:\n  seed: 3\ntrain:\n  compile: false\n  discriminator_pass: auto\n  epochs: 2\n")
    config = parse_arguments(["--config", str(file), "--run.name", "again"])
    assert (config.run.seed, config.train.epochs) == (3, 2)
    lines = capsys.readouterr().err.splitlines()
    assert [line.split(" was removed")[0] for line in lines] == [f"note: {file}: {key}" for key in REMOVED]


def test_other_ranks_say_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RANK", "1")
    parse_arguments(["--train.compile", "true"])
    assert capsys.readouterr().err == ""


def test_beside_a_mistake_it_is_not_counted_as_one() -> None:
    with pytest.raises(UserError) as caught:
        parse_arguments(["--train.compile", "true", "--run.sed", "3"])
    assert str(caught.value) == "run.sed: there is no such setting; did you mean run.seed?"
