"""Settings: what the help says, what YAML and the command line may say, and what is told about mistakes."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from dcgan_dist.command_line import build_parser, parse_arguments, write_yaml
from dcgan_dist.config import TrainConfig
from dcgan_dist.errors import UserError
from tests.running import ROOT, Finished, run_module, user_errors


def settings() -> dict[str, Any]:
    """Every setting by its name on the command line, and its default."""
    sections = dataclasses.fields(TrainConfig)
    return {
        f"{section.name}.{name}": value
        for section in sections
        for name, value in TrainConfig().as_dict()[section.name].items()
    }


def mistakes(*arguments: object) -> str:
    with pytest.raises(UserError) as caught:
        parse_arguments([str(argument) for argument in arguments])
    return str(caught.value)


def printed(*arguments: str) -> str:
    output = io.StringIO()
    with contextlib.redirect_stdout(output), pytest.raises(SystemExit) as end:
        parse_arguments(list(arguments))
    assert end.value.code in (0, None)
    return output.getvalue()


# --- help -------------------------------------------------------------------------------------------------------------


def test_every_setting_says_in_the_help_what_it_is() -> None:
    helps = {action.dest: action.help for action in build_parser()._actions}
    for name in settings():
        assert helps.get(name), name
        assert len(str(helps[name]).split()) >= 3, (name, helps[name])


def test_help_names_every_setting_with_its_default_and_shows_commands() -> None:
    text = printed("--help")
    for name in settings():
        assert f"--{name} " in text
    assert "default: 128" in text
    assert "torchrun --nproc_per_node 8 -m dcgan_dist.train" in text


def test_help_takes_less_than_two_seconds_of_computing_and_imports_nothing_heavy() -> None:
    program = (
        "import sys, resource\n"
        "from dcgan_dist.train import main\n"
        "sys.argv = ['train', '--help']\n"
        "try:\n"
        "    main()\n"
        "except SystemExit as end:\n"
        "    assert not end.code, end.code\n"
        "used = resource.getrusage(resource.RUSAGE_SELF)\n"
        "heavy = [name for name in ('torch', 'numpy', 'wandb', 'nvidia', 'PIL') if name in sys.modules]\n"
        "print('\\nRESULT', used.ru_utime + used.ru_stime, *heavy)\n"
    )
    result = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True)
    seconds, *heavy = result.stdout.rpartition("RESULT ")[2].split()
    assert heavy == []
    assert float(seconds) < 2


# --- what may be said -------------------------------------------------------------------------------------------------


def test_without_arguments_every_setting_has_its_default() -> None:
    assert parse_arguments([]) == TrainConfig()
    assert settings()["data.batch_size_per_rank"] == 128
    assert str(TrainConfig().run.folder) == "runs/celeba64"


def test_the_command_line_wins_over_yaml_and_yaml_over_defaults(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run: {seed: 3}\ndata:\n  image_size: 32\n  flip: true\n")
    config = parse_arguments(["--config", str(file), "--data.image_size", "128"])
    assert (config.run.seed, config.data.image_size, config.data.flip) == (3, 128, True)
    assert config.data.batch_size_per_rank == 128


def test_printed_settings_read_back_as_they_were(tmp_path: Path) -> None:
    file = tmp_path / "printed.yaml"
    arguments = ["--data.crop", "squash", "--train.total_images", "77", "--run.dir", "runs/x", "--optim.beta1", "0.25"]
    file.write_text(printed(*arguments, "--print_config"))
    assert parse_arguments(["--config", str(file)]) == parse_arguments(arguments)


def test_the_saved_configuration_reads_back_as_it_was(tmp_path: Path) -> None:
    file = tmp_path / "config.yaml"
    config = parse_arguments(["--data.flip", "true", "--optim.generator_lr", "1e-5", "--run.name", "007"])
    file.write_text(write_yaml(config))
    assert yaml.safe_load(file.read_text())["optim"]["generator_lr"] == 1e-5
    assert parse_arguments(["--config", str(file)]) == config


@pytest.mark.parametrize("value", ["null", "1"])
def test_numbers_that_may_be_left_out_can_be_null(value: str) -> None:
    expected = None if value == "null" else 1
    assert parse_arguments(["--train.total_images", value]).train.total_images == expected


def test_a_value_may_stand_behind_an_equals_sign() -> None:
    assert parse_arguments(["--data.image_size=32"]).data.image_size == 32


# --- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("data.batchsize_per_rank", "data.batch_size_per_rank"),
        ("optim.genrator_lr", "optim.generator_lr"),
        ("train.epoch", "train.epochs"),
        ("batch_size_per_rank", "data.batch_size_per_rank"),
    ],
)
def test_for_an_unknown_setting_the_nearest_one_is_named(typed: str, meant: str) -> None:
    assert mistakes(f"--{typed}", "5") == f"{typed}: there is no such setting; did you mean {meant}?"


def test_an_unknown_setting_in_yaml_is_named_with_its_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data: {imagesize: 32}\n")
    assert mistakes("--config", file) == (
        f"{file}: data.imagesize: there is no such setting; did you mean data.image_size?"
    )


def test_several_mistakes_are_told_together(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("train: {epochs: many}\ndata: {crop: middle}\n")
    told = mistakes("--config", file, "--run.sed", "1", "--data.image_size", "48", "--optim.beta1", "1")
    assert told.startswith("5 settings cannot be used:\n")
    for part in (
        "train.epochs = many: must be a number",
        "data.crop = middle: must be one of short_side",
        "run.sed: there is no such setting; did you mean run.seed?",
        "data.image_size = 48: must be one of 32, 64, 128, 256",
        "optim.beta1 = 1.0: must be at least 0 and below 1",
    ):
        assert part in told, told
    assert len(told.splitlines()) == 6


def test_of_many_mistakes_the_first_are_told_and_the_rest_are_counted(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("run:\n" + "".join(f"  {name}: 1\n" for name in "abcdefghijk"))
    told = mistakes("--config", file).splitlines()
    assert told[0] == "11 settings cannot be used:"
    assert told[1].startswith(f"  {file}: run.a: there is no such setting")
    assert told[-1] == "  and 3 more"
    assert len(told) == 10


@pytest.mark.parametrize(
    ("setting", "value", "expected"),
    [
        ("data.image_size", "big", "must be a whole number"),
        ("data.image_size", "64.5", "must be a whole number"),
        ("data.flip", "perhaps", "must be true or false"),
        ("train.epochs", "many", "must be a number"),
        ("train.precision", "int8", "must be one of auto, fp32, bf16, fp16, fp64"),
        ("data.global_batch_size", "many", "or null"),
        ("run.seed", "-1", "must be at least 0"),
        ("run.seed", str(2**64), "run.seed"),
        ("data.batch_size_per_rank", "0", "must be at least 1"),
        ("data.global_batch_size", "0", "must be at least 1"),
        ("model.base_channels", "-64", "must be at least 1"),
        ("sample.num_images", "0", "must be at least 1"),
        ("checkpoint.keep_last", "0", "must be at least 1"),
        ("optim.generator_lr", "0", "must be a positive number"),
        ("optim.generator_lr", ".inf", "must be a positive number"),
        ("optim.discriminator_lr", ".nan", "must be a positive number"),
        ("optim.beta2", "1", "must be at least 0 and below 1"),
        ("optim.beta1", ".nan", "must be at least 0 and below 1"),
        ("train.epochs", "0", "must be a positive number"),
        ("track.wandb_project", "me/faces", "must be 1 to 128 characters without"),
        ("track.wandb_project", "x" * 129, "must be 1 to 128 characters without"),
        ("train.epochs", ".inf", "must be a positive number"),
        ("run.name", "", "must be a plain name"),
        ("run.name", "../up", "must be a plain name"),
        ("run.name", "..", "must be a plain name"),
        ("run.resume", "no/such/file.pt", "must be auto, never, or the path of a checkpoint that exists"),
        ("data", "5", "is a section"),
    ],
)
def test_what_cannot_be_is_refused_by_name(setting: str, value: str, expected: str) -> None:
    told = mistakes(f"--{setting}", value)
    assert setting in told
    assert expected in told
    assert len(told.splitlines()) == 1


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("data: [1, 2", "is not YAML"),
        ("just text", "must hold sections"),
        ("", "must hold sections"),
        ("- a\n- b\n", "must hold sections"),
        ("data: 5\n", "data"),
        ("7: {x: 1}\n", "there is no such setting"),
        ("data: {image_size: [32]}\n", "must be a whole number"),
        ("\udcff".encode("utf-8", "surrogateescape"), "is not YAML"),
    ],
)
def test_yaml_that_cannot_be_used_is_named(tmp_path: Path, content: str | bytes, expected: str) -> None:
    file = tmp_path / "mine.yaml"
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    told = mistakes("--config", file)
    assert str(file) in told
    assert expected in told
    assert len(told.splitlines()) == 1


def test_a_section_with_nothing_in_it_keeps_its_defaults_or_is_told(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("data:\n  # image_size: 32\n")
    with contextlib.suppress(UserError):
        assert parse_arguments(["--config", str(file)]) == TrainConfig()


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--data.image_size"], "needs a value"),
        (["--data.image_size", "--data.flip", "true"], "needs a value"),
        (["data.image_size", "32"], "settings are written as --section.field VALUE"),
        (["--config", "no/such.yaml"], "give the path of a YAML file"),
        (["--config", "."], "give the path of a YAML file"),
    ],
)
def test_what_is_no_setting_at_all_is_told(arguments: list[str], expected: str) -> None:
    assert expected in mistakes(*arguments)


def test_a_mistake_ends_the_command_with_status_2_and_one_line() -> None:
    result: Finished = run_module("dcgan_dist.train", "--data.imagesize", 32)
    assert result.returncode == 2
    assert result.stdout == ""
    assert result.stderr.splitlines() == user_errors(result)
    assert "did you mean data.image_size?" in result.stderr


def test_only_the_first_rank_of_a_node_tells_it() -> None:
    command = [sys.executable, "-m", "dcgan_dist.train", "--data.imagesize", "32"]
    environment = os.environ | {"LOCAL_RANK": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout, result.stderr) == (2, "", "")
