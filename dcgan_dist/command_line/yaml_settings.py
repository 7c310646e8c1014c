"""Settings as YAML, read as on the command line: `off` and `no` are words, 010 is ten, and no key may stand twice.

YAML 1.1, which PyYAML reads, takes `off` for false, 010 for eight, 1e-5 for text, and the last of two equal keys.
"""

from __future__ import annotations

import re
from dataclasses import fields
from functools import cache
from typing import Any, Literal, get_args, get_origin, get_type_hints

import yaml
from jsonargparse import set_loader

from dcgan_dist.config import TrainConfig

MODE = "settings"
"""Name under which jsonargparse knows this way of reading."""

FALSE, TRUE = ("false", "off", "no"), ("true", "on", "yes")

_INTEGER = r"[-+]?(?:[0-9]+(?:_[0-9]+)*|0x[0-9a-fA-F]+|0o[0-7]+|0b[01]+|[0-9]+(?::[0-5]?[0-9])+)"
_FRACTION = (
    r"[-+]?(?:[0-9][0-9_]*\.?[0-9_]*|\.[0-9][0-9_]*)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)"
)
_WORDS = {  # in this order: what is an integer is no fraction
    "null": (r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    "int": (_INTEGER, list("-+0123456789")),
    "float": (_FRACTION, list("-+0123456789.")),
    "merge": (r"<<", ["<"]),
}


class DuplicateKey(yaml.YAMLError):
    """A key that occurs twice in one section; the message names it and both lines."""


class _Loader(yaml.SafeLoader):
    """Plain scalars are null, numbers or text; true and false stay text until the setting is known."""

    yaml_implicit_resolvers = {}  # noqa: RUF012 (as PyYAML declares it)

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        """An integer; a zero in front does not make it octal."""
        text = node.value
        if ":" in text:  # 1:30 is ninety, as on the command line, where jsonargparse reads it
            return super().construct_yaml_int(node)
        return int(text, 0) if text.lstrip("+-")[:2] in ("0x", "0o", "0b") else int(text)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that this loader, or one for YAML 1.1, would take for something else."""


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
for _kind, (_pattern, _starts) in _WORDS.items():
    for _class in (_Loader, _Dumper):
        _class.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(f"^(?:{_pattern})$"), _starts)


def read_yaml(text: str) -> Any:
    """What a file of settings says, with true, on and the like as text.

    Raises DuplicateKey, another YAMLError, or ValueError and RecursionError for what Python cannot take in.
    """
    loader = _Loader(text)
    try:
        root = loader.get_single_node()
        if root is None:
            return None
        _refuse_duplicates(root, "", set())
        return loader.construct_document(root)
    finally:
        loader.dispose()


def read_settings(text: str) -> Any:
    """Like `read_yaml`, but with true, on and the like as the setting knows them: a bool, or one of its choices."""
    content = read_yaml(text)
    if not isinstance(content, dict):
        return content
    drop_removed(content)
    return {name: _in_plain_words(name, value) for name, value in content.items()}


def write_yaml(settings: dict[str, Any]) -> str:
    """Nested settings as YAML in the order they have, which every reader of YAML reads alike."""
    return yaml.dump(settings, Dumper=_Dumper, sort_keys=False)


def register() -> None:
    """Lets a jsonargparse parser with `parser_mode=MODE` read its files, and values of its options, this way."""
    set_loader(MODE, read_settings, exceptions=(yaml.YAMLError, ValueError, RecursionError))


def plain_word(key: str, value: str) -> str:
    """The value that the setting `key` knows for one of on, off, yes, no, true, false; any other value as it is.

    A switch knows true and false; a choice that can be `off` knows that for false and no too.
    """
    expected = _types().get(key)
    same = next((words for words in (FALSE, TRUE) if value.lower() in words), ())
    if expected is bool and same:
        return same[0]
    choices = get_args(expected) if get_origin(expected) is Literal else ()
    return value if value in choices else next((word for word in same if word in choices), value)


@cache
def _types() -> dict[str, Any]:
    """The type of every setting."""
    return {
        f"{section.name}.{name}": expected
        for section in fields(TrainConfig)
        for name, expected in get_type_hints(section.default_factory).items()
    }


def _in_plain_words(key: str, value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _in_plain_words(f"{key}.{name}", inner) for name, inner in value.items()}
    word = plain_word(key, value) if isinstance(value, str) else value
    return word == TRUE[0] if _types().get(key) is bool and word in (TRUE[0], FALSE[0]) else word


def _refuse_duplicates(node: yaml.Node, prefix: str, seen: set[int]) -> None:
    """Raises DuplicateKey. `seen`: the nodes that were looked at, as an alias may lead back to one of them."""
    if not isinstance(node, yaml.MappingNode) or id(node) in seen:
        return
    seen.add(id(node))
    lines: dict[str, int] = {}
    for key, value in node.value:
        name, line = f"{prefix}{key.value}", key.start_mark.line + 1
        if name in lines:
            raise DuplicateKey(f"{name} is set on line {lines[name]} and again on line {line}; keep one of them")
        lines[name] = line
        _refuse_duplicates(value, f"{name}.", seen)


REMOVED = {
    "train.compile": "networks are not compiled any more: where it was measured it made a step slower",
    "train.discriminator_pass": "real and drawn images always go together, with the same weights in the end",
}
"""What to say of each."""


def say(key: str, origin: str) -> str:
    """Returns the note about a removed setting; `origin` says where it was found."""
    return f"{origin}{key} was removed and is passed over ({REMOVED[key]}); delete it"


def without_removed(arguments: list[str]) -> list[str]:
    """Returns the arguments without removed settings, written as `--key VALUE` or `--key=VALUE`."""
    kept: list[str] = []
    position = 0
    while position < len(arguments):
        word = arguments[position]
        position += 1
        key, equals, _ = word.removeprefix("--").partition("=")
        if not word.startswith("--") or key not in REMOVED:
            kept.append(word)
        elif not equals and position < len(arguments) and not arguments[position].startswith("--"):
            position += 1
    return kept


def drop_removed(content: dict[str, Any]) -> None:
    """Removes obsolete settings from a file's sections."""
    for key in REMOVED:
        section, _, name = key.partition(".")
        if isinstance(fields := content.get(section), dict):
            fields.pop(name, None)
