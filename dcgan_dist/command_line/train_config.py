"""From the command line and YAML files to a `TrainConfig`; all mistakes are reported together."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import io
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from jsonargparse import ArgumentParser, DefaultHelpFormatter, Namespace, set_parsing_settings

from dcgan_dist.base.errors import UserError, in_one_line, speaks_for_node
from dcgan_dist.command_line.config_problems import problems_of
from dcgan_dist.command_line.yaml_settings import (
    MODE,
    REMOVED,
    DuplicateKey,
    plain_word,
    read_yaml,
    register,
    say,
    without_removed,
)
from dcgan_dist.command_line.yaml_settings import write_yaml as write_settings
from dcgan_dist.config import TrainConfig

EXAMPLES = """Trains a DCGAN on a folder of shards, on as many ranks as torchrun starts.

python -m dcgan_dist.train                                       CelebA 64x64 on one GPU, or on the CPU
torchrun --nproc_per_node 8 -m dcgan_dist.train                  the same on eight GPUs
python -m dcgan_dist.train --config configs/demo.yaml --run.seed 1
python -m dcgan_dist.train --print_config > mine.yaml            all settings, to edit and pass to --config

Called again with the same run folder, a stopped run goes on where it was."""

MOST_PROBLEMS = 8  # a misplaced line of YAML makes all that follow it wrong, and a message must fit a screen


class _HelpFormatter(DefaultHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Defaults behind every option, and the examples as they are laid out."""


def build_parser() -> ArgumentParser:
    """The parser of every `--section.field`, with the docstrings of `TrainConfig` as its help."""
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    register()
    parser = ArgumentParser(
        parser_mode=MODE,
        prog="python -m dcgan_dist.train",
        usage="%(prog)s [--config FILE.yaml] [--section.field VALUE ...] [--print_config]",
        description=EXAMPLES,
        formatter_class=_HelpFormatter,
        exit_on_error=False,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", action="config", metavar="FILE.yaml", help="Settings as YAML; what follows it wins."
    )
    parser.add_class_arguments(TrainConfig)
    return parser


def parse_arguments(arguments: list[str]) -> TrainConfig:
    """The configuration that `arguments` ask for.

    Raises UserError that lists every unknown key, wrong type and impossible value; exits with 0 after `--help`. Rank 0
    prints a line for every removed setting.
    """
    parser = build_parser()
    removed = [say(key, origin) for key, _, origin in _settings(arguments, []) if key in REMOVED]
    arguments = without_removed(arguments)
    try:
        with _printing_once():
            config = _instantiate(parser, parser.parse_args(_in_plain_words(arguments)))
        _assert_nothing_is_null(config)
    except Exception as error:  # jsonargparse has several kinds; each means that something was typed wrongly
        raise UserError(_in_lines(_mistakes(parser, arguments) or [in_one_line(error)])) from None
    if found := problems_of(config):
        raise UserError(_in_lines(found))
    if os.environ.get("RANK", "0") == "0":
        for line in removed:
            print(f"note: {line}", file=sys.stderr)
    return config


def write_yaml(config: TrainConfig) -> str:
    """The resolved configuration as YAML, in the order of the fields."""
    return write_settings(config.as_dict())


def _in_plain_words(arguments: list[str]) -> list[str]:
    """The arguments with each on, off, yes, no, true or false as the setting before it knows it."""
    words = []
    for before, word in zip(["", *arguments], arguments, strict=False):
        key, equals, value = word.partition("=")
        if word.startswith("--") and equals:
            words.append(f"{key}={plain_word(key[2:], value)}")
        else:
            words.append(plain_word(before.removeprefix("--"), word))
    return words


def _instantiate(parser: ArgumentParser, settings: Namespace) -> TrainConfig:
    sections = vars(parser.instantiate(settings))
    return TrainConfig(**{name: section for name, section in sections.items() if name != "config"})


def _assert_nothing_is_null(config: TrainConfig) -> None:
    """ValueError naming a setting that YAML leaves empty; jsonargparse takes null for anything there."""
    defaults = TrainConfig().as_dict()
    for section, fields in config.as_dict().items():
        for name, value in fields.items():
            if value is None and defaults[section][name] is not None:
                raise ValueError(f"{section}.{name}: must not be empty")


@contextlib.contextmanager
def _printing_once() -> Iterator[None]:
    """Lets only the first rank of a node print `--help` and `--print_config`."""
    if speaks_for_node():
        yield
    else:
        with contextlib.redirect_stdout(io.StringIO()):
            yield


def _in_lines(problems: list[str]) -> str:
    if len(problems) == 1:
        return problems[0]
    told = problems[:MOST_PROBLEMS] + [f"and {len(problems) - MOST_PROBLEMS} more"] * (len(problems) > MOST_PROBLEMS)
    return f"{len(problems)} settings cannot be used:" + "".join(f"\n  {problem}" for problem in told)


def _mistakes(parser: ArgumentParser, arguments: list[str]) -> list[str]:
    """Tries every setting by itself, because the parser stops at the first that it cannot take."""
    found: list[str] = []
    usable: list[str] = []
    for key, value, origin in _settings(arguments, found):
        if key in REMOVED:
            continue
        if key not in _known_keys():
            found.append(f"{origin}{key}: {_what_is_meant(key)}")
            continue
        setting = f"--{key}={plain_word(key, value)}"
        try:
            parser.parse_args([setting])
            usable.append(setting)
        except Exception as error:
            expected = in_one_line(error).partition("Expected a ")[2].partition(". Got value")[0]
            found.append(f"{origin}{key} = {value}: must be {_plain_type(expected)}")
    return found + problems_of(_instantiate(parser, parser.parse_args(usable)))


def _what_is_meant(key: str) -> str:
    if inside := [known for known in _known_keys() if known.startswith(f"{key}.")]:
        return f"is a section; set a field of it, as in --{inside[0]} VALUE"
    nearest = difflib.get_close_matches(key, _known_keys(), n=1)
    return "there is no such setting; " + (f"did you mean {nearest[0]}?" if nearest else "see --help for the names")


def _settings(arguments: list[str], problems: list[str]) -> Iterator[tuple[str, str, str]]:
    """(key, value, where it stands) of each setting; what is no setting at all goes to `problems`."""
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        if not word.startswith("--"):
            problems.append(f"{word}: not understood; settings are written as --section.field VALUE")
            continue
        key, equals, value = word[2:].partition("=")
        if key in ("help", "print_config"):
            continue
        if not equals:
            if position == len(arguments) or arguments[position].startswith("--"):
                problems.append(f"{key}: needs a value, as in --{key} VALUE")
                continue
            value = arguments[position]
            position += 1
        if key == "config":
            yield from _yaml_settings(value, problems)
        else:
            yield key, value, ""


def _yaml_settings(file: str, problems: list[str]) -> Iterator[tuple[str, str, str]]:
    try:
        content = read_yaml(Path(file).read_text())
        leaves = list(_leaves(content)) if isinstance(content, dict) else []
    except OSError as error:
        problems.append(f"--config {file}: cannot be read ({error.strerror}); give the path of a YAML file")
        return
    except DuplicateKey as error:
        problems.append(f"--config {file}: {error}")
        return
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # of Python's own kinds for dates, digits, depth
        problems.append(f"--config {file}: is not YAML: {in_one_line(error)}")
        return
    if not isinstance(content, dict):
        problems.append(f"--config {file}: must hold sections such as 'data:' with fields below them")
        return
    yield from ((key, value, f"{file}: ") for key, value in leaves)


def _leaves(content: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    for key, value in content.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", "null" if value is None else str(value)


def _known_keys() -> list[str]:
    return [key for key, _ in _leaves(TrainConfig().as_dict())]


def _plain_type(expected: str) -> str:
    """jsonargparse's name of a type in a reader's words: <class 'float'> is a number."""
    if "Literal[" in expected:
        return "one of " + expected.partition("Literal[")[2].partition("]")[0].replace("'", "")
    words = {"float": "a number", "int": "a whole number", "bool": "true or false", "str": "text"}
    named = [words[name] for name in words if expected.startswith(f"<class '{name}'>")]
    return (named[0] if named else "of another type; see --help") + (" or null" if "NoneType" in expected else "")
