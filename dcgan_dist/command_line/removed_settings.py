"""Settings that there were once: a run that names one goes on without it, and is told what became of it."""

from __future__ import annotations

from typing import Any

REMOVED = {
    "train.compile": "networks are not compiled any more: where it was measured it made a step slower",
    "train.discriminator_pass": "real and drawn images always go together, with the same weights in the end",
}
"""What to say of each."""


def say(key: str, origin: str) -> str:
    """The line for a removed setting; `origin` says where it stands."""
    return f"{origin}{key} was removed and is passed over ({REMOVED[key]}); delete it"


def without_removed(arguments: list[str]) -> list[str]:
    """The command line without them, written as `--key VALUE` or `--key=VALUE`."""
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
    """Takes them out of a file's sections."""
    for key in REMOVED:
        section, _, name = key.partition(".")
        if isinstance(fields := content.get(section), dict):
            fields.pop(name, None)
