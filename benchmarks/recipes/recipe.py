"""Recipes: a name and the settings in which it differs, from a YAML file and from the command line."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import yaml

from dcgan_dist.base.errors import UserError, in_one_line
from dcgan_dist.command_line.train_config import parse_arguments
from dcgan_dist.command_line.yaml_settings import read_yaml

FOR_ALL = "all"
"""The entry of the file whose settings are those of every recipe."""

Settings = dict[str, str]
"""Values by full name, as on the training command's line: `train.loss` and `hinge`."""


@dataclass(frozen=True)
class Recipe:
    """One way to train."""

    name: str
    settings: Settings


def read_recipes(file: Path) -> tuple[Settings, list[Recipe]]:
    """The settings for all, and the recipes in their order.

    Raises UserError if there is no such file, or it is not a list of names with `section.field=value` behind them.
    """
    try:
        content = read_yaml(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise UserError(f"--file {file}: cannot be read ({error.strerror}); give a YAML file of recipes") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise UserError(f"--file {file}: is not YAML: {in_one_line(error, 160)}") from None
    if not isinstance(content, dict) or any(not isinstance(text, (str, type(None))) for text in content.values()):
        raise UserError(f"--file {file}: must hold a line for each recipe, such as 'hinge: train.loss=hinge'")
    known = [recipe_of(str(name), _words(str(name), text or "")) for name, text in content.items()]
    for_all = next((recipe.settings for recipe in known if recipe.name == FOR_ALL), {})
    return for_all, [recipe for recipe in known if recipe.name != FOR_ALL]


def recipe_of(name: str, words: list[str]) -> Recipe:
    """A recipe from words like `train.loss=hinge`. Raises UserError if its name cannot be a folder's."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise UserError(f"recipe {name!r}: must be a name of letters, digits, '-', '_' and '.', for it names a folder")
    return Recipe(name, settings_of(words, f"recipe {name}"))


def settings_of(words: list[str], where: str) -> Settings:
    """Raises UserError if one of the words is not `section.field=value`, or a setting stands twice."""
    settings: Settings = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UserError(f"{where}: {word!r} is not understood; write settings as section.field=value")
        if key in settings:
            raise UserError(f"{where}: {key} is set twice; keep one of them")
        settings[key] = value
    return settings


def chosen(asked: list[list[str]], known: list[Recipe]) -> list[Recipe]:
    """The recipes named on the command line, each with its settings or a name in the file; all `known` if none is.

    Raises UserError if a name alone is not in the file, or a name stands twice.
    """
    by_name = {recipe.name: recipe for recipe in known}
    recipes = []
    for name, *words in asked:
        if not words and name not in by_name:
            names = ", ".join(by_name) or "none"
            raise UserError(f"--recipe {name}: not in the file (it has {names}); name one, or add key=value settings")
        recipes.append(recipe_of(name, words) if words else by_name[name])
    names = [recipe.name for recipe in recipes]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise UserError(f"--recipe {twice[0]}: stands twice; give the second another name")
    if not recipes and not known:
        raise UserError("there is no recipe; add --recipe NAME section.field=value ...")
    return recipes or known


def assert_usable(recipe: Recipe, for_all: Settings) -> None:
    """Raises UserError if the training command would not take a recipe's settings with those for all."""
    try:
        parse_arguments(as_arguments(for_all | recipe.settings))
    except UserError as error:
        raise UserError(f"recipe {recipe.name}: {error}") from None


def as_arguments(settings: Settings) -> list[str]:
    """Settings for the training command."""
    return [f"--{key}={value}" for key, value in settings.items()]


def _words(name: str, text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:  # a quotation mark that is not closed
        raise UserError(f"recipe {name}: {error} in {text!r}") from None
