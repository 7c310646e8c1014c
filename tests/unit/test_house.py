"""How large the house is: what a function takes, what a command reaches, how much stands in one place."""

from __future__ import annotations

import ast
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from dcgan_dist.training.recorder import Recorder
from tests.running import ROOT
from tests.unit.test_import_direction import MODULES, between_modules

MOST_PARAMETERS, LONGEST_FUNCTION, LONGEST_FILE = 7, 60, 260
MOST_MODULES = {"train": 81, "generate": 48, "evaluate": 45, "export": 30, "report": 25}
"""What a command reaches, itself included."""
KERNELS = {"dcgan_dist.gan.fast.batch_norm_kernels", "dcgan_dist.gan.fast.image_kernels"}
"""Files whose functions have as many parameters, and they as many lines, as kernels need."""
SETTINGS = "dcgan_dist.config"
"""Has a line for every setting."""


def functions(path: Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    return (node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef))


@pytest.mark.parametrize("module", sorted(MODULES.keys() - KERNELS))
def test_functions_take_few_parameters_and_are_short_and_so_are_files(module: str) -> None:
    path = MODULES[module]
    assert path.read_text().count("\n") <= LONGEST_FILE or module == SETTINGS
    for function in functions(path):
        given = function.args
        names = [one.arg for one in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
        assert len([name for name in names if name not in ("self", "cls", "ctx")]) <= MOST_PARAMETERS, function.name
        assert function.end_lineno is not None
        assert function.end_lineno - function.lineno < LONGEST_FUNCTION, function.name


@pytest.mark.parametrize("command", MOST_MODULES)
def test_a_command_reaches_no_more_than_it_needs(command: str) -> None:
    arrows, reached, left = between_modules(), set(), [f"dcgan_dist.{command}"]
    while left:
        module = left.pop()
        if module not in reached and MODULES[module].name != "__init__.py":
            reached.add(module)
            left += arrows.get(module, ())
    assert len(reached) <= MOST_MODULES[command], sorted(reached)


def test_only_one_place_knows_the_keys_of_a_checkpoint() -> None:
    for path in (*(ROOT / "dcgan_dist").rglob("*.py"), *(ROOT / "launch").rglob("*.py")):
        if path.name != "saved.py":
            assert not re.search(r"\b(saved|checkpoint)\[", path.read_text()), path


def test_the_recorder_has_few_parts() -> None:
    assert len(dataclasses.fields(Recorder)) <= 8
