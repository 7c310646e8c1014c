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

from dcgan_dist.base.errors import UserError
from dcgan_dist.command_line.train_config import build_parser, parse_arguments, write_yaml
from dcgan_dist.config import TrainConfig
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


# --- YAML's own words -------------------------------------------------------------------------------------------------


def from_yaml(tmp_path: Path, text: str) -> TrainConfig:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    return parse_arguments(["--config", str(file)])


NO, YES = ("off", "no", "false", "Off", "NO", "False", '"off"'), ("on", "yes", "true", "On", "YES", "True", "'yes'")


@pytest.mark.parametrize("word", [*NO, *YES])
def test_on_off_yes_no_true_and_false_switch_in_files_and_on_the_command_line(tmp_path: Path, word: str) -> None:
    expected = word in YES
    assert from_yaml(tmp_path, f"data:\n  flip: {word}\n").data.flip is expected
    bare = word.strip("'\"")
    assert parse_arguments(["--data.flip", bare]).data.flip is expected
    assert parse_arguments([f"--data.flip={bare}", "--run.seed", "1"]).data.flip is expected


@pytest.mark.parametrize("word", NO)
def test_every_word_for_no_turns_a_choice_off_that_can_be_off(tmp_path: Path, word: str) -> None:
    assert from_yaml(tmp_path, f"track:\n  wandb: {word}\n").track.wandb == "off"
    assert parse_arguments(["--track.wandb", word.strip('"')]).track.wandb == "off"


@pytest.mark.parametrize("word", ["on", "yes", "true"])
def test_a_choice_that_cannot_be_on_says_what_it_can_be_and_what_was_written(tmp_path: Path, word: str) -> None:
    expected = f"track.wandb = {word}: must be one of auto, online, offline, off"
    assert expected in mistakes("--track.wandb", word)
    with pytest.raises(UserError, match=f"mine.yaml: {expected}"):
        from_yaml(tmp_path, f"track: {{wandb: {word}}}\n")


def test_texts_stay_as_they_are_written(tmp_path: Path) -> None:
    config = from_yaml(tmp_path, "run: {name: no, dir: on}\ntrack: {wandb_project: 2026-01-31}\n")
    assert (config.run.name, config.run.dir, config.track.wandb_project) == ("no", "on", "2026-01-31")
    assert parse_arguments(["--run.name", "off", "--run.dir", "a:"]).run.name == "off"


@pytest.mark.parametrize("setting", ["data.image_size", "train.total_images", "optim.beta1"])
def test_a_number_cannot_be_yes(tmp_path: Path, setting: str) -> None:
    section, name = setting.split(".")
    assert f"{setting} = yes: must be a" in mistakes(f"--{setting}", "yes")
    with pytest.raises(UserError, match=f"mine.yaml: {setting} = yes: must be a"):
        from_yaml(tmp_path, f"{section}: {{{name}: yes}}\n")


@pytest.mark.parametrize(
    ("text", "number"), [("010", 10), ("64_000", 64000), ("0x10", 16), ("+7", 7), ("1:30", 90), ("1e5", None)]
)
def test_a_number_in_a_file_is_the_number_on_the_command_line(tmp_path: Path, text: str, number: int | None) -> None:
    if number is None:
        with pytest.raises(UserError, match="must be a whole number"):
            from_yaml(tmp_path, f"run: {{seed: {text}}}\n")
        assert "must be a whole number" in mistakes("--run.seed", text)
        return
    assert from_yaml(tmp_path, f"run: {{seed: {text}}}\n").run.seed == number
    assert parse_arguments(["--run.seed", text]).run.seed == number


@pytest.mark.parametrize("text", ["1e-5", "1.0e-05", "1E-5", "1e+2", ".5", "5.", "0.5", "3", "1_000.5"])
def test_a_fraction_in_a_file_is_the_fraction_on_the_command_line(tmp_path: Path, text: str) -> None:
    expected = float(text)
    assert from_yaml(tmp_path, f"optim: {{generator_lr: {text}}}\n").optim.generator_lr == expected
    assert parse_arguments(["--optim.generator_lr", text]).optim.generator_lr == expected


@pytest.mark.parametrize(
    "name", ["off", "No", "1e5", "010", "0o17", "1_000", "2026-01-31", "null", "~", "1:30", "<<", "="]
)
def test_what_a_run_writes_down_reads_back_whatever_its_name(tmp_path: Path, name: str) -> None:
    default = TrainConfig()
    track = dataclasses.replace(default.track, wandb="off", wandb_project="x")
    config = dataclasses.replace(default, run=dataclasses.replace(default.run, name=name), track=track)
    assert from_yaml(tmp_path, write_yaml(config)) == config
    assert "\n  wandb: 'off'\n" in write_yaml(config)
    assert yaml.safe_load(write_yaml(config)) == config.as_dict(), "other programs read the same"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("data:\n  flip: on\n  image_size: 32\n  flip: off\n", "data.flip is set on line 2 and again on line 4"),
        (
            "data:\n  flip: on\n\ntrain:\n  epochs: 2\ndata:\n  image_size: 32\n",
            "data is set on line 1 and again on line 6",
        ),
        ("run: {seed: 1,\n  'seed': 1}\n", "run.seed is set on line 1 and again on line 2"),
    ],
)
def test_a_setting_that_stands_twice_in_a_file_is_refused_with_both_lines(
    tmp_path: Path, text: str, expected: str
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    assert mistakes("--config", file) == f"--config {file}: {expected}; keep one of them"
    result = run_module("dcgan_dist.train", "--config", file)
    assert (result.returncode, user_errors(result)) == (2, [f"error: {mistakes('--config', file)}"])


def test_merged_sections_may_be_overridden(tmp_path: Path) -> None:
    text = "data: &small {image_size: 32, flip: on}\n"
    assert from_yaml(tmp_path, text + "model: {latent_size: 5}\n").data.flip
    with pytest.raises(UserError, match="image_size: there is no such setting"):
        from_yaml(tmp_path, text + "model:\n  <<: *small\n")


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
        ("data.augment", "ada", "must be one of none, diff"),
        ("ema.warmup", "-0.05", "must be a share of the images seen"),
        ("ema.warmup", ".nan", "must be a share of the images seen"),
        ("train.epochs", "0", "must be a positive number"),
        ("track.wandb_project", "me/faces", "must be 1 to 128 characters without"),
        ("track.wandb_project", "x" * 129, "must be 1 to 128 characters without"),
        ("train.epochs", ".inf", "must be a positive number"),
        ("train.accumulate", "0", "must be at least 1"),
        ("train.accumulate", "2", "set --train.batch_norm local"),
        ("train.r1_gamma", "-1", "must be a number from 0, which turns the penalty off"),
        ("train.r1_gamma", ".nan", "must be a number from 0, which turns the penalty off"),
        ("model.spectral_norm", "perhaps", "must be true or false"),
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


def test_an_average_that_is_off_cannot_warm_up() -> None:
    told = mistakes("--ema.half_life_images", "0", "--ema.warmup", "0.05")
    assert told == "ema.warmup = 0.05: there is no average; set --ema.half_life_images"


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
