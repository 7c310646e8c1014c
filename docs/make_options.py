"""Writes the table of all settings into README.md, from the fields and docstrings of `TrainConfig`.

python docs/make_options.py            rewrites the table
python docs/make_options.py --check    exit status 1 if it is out of date
"""

from __future__ import annotations

import dataclasses
import sys
import typing
from pathlib import Path

from docstring_parser import parse_from_object

from dcgan_dist.config import TrainConfig

README = Path(__file__).parent.parent / "README.md"
START, END = "<!-- options: made by docs/make_options.py -->\n", "<!-- end of options -->"


def options_table() -> str:
    """The settings as a Markdown table, in the order of the fields."""
    lines = ["| setting | default | meaning |", "|---|---|---|"]
    for section, kind in typing.get_type_hints(TrainConfig).items():
        meanings = {parameter.arg_name: parameter.description for parameter in parse_from_object(kind).params}
        for field in dataclasses.fields(kind):
            default = "null" if field.default is None else str(field.default)
            default = default.lower() if isinstance(field.default, bool) else default
            meaning = " ".join((meanings[field.name] or "").split())
            lines.append(f"| `{section}.{field.name}` | {default} | {meaning} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Rewrites or checks the README; the exit status."""
    before, _, rest = README.read_text().partition(START)
    old, _, after = rest.partition(END)
    new = options_table()
    if "--check" in sys.argv[1:]:
        return int(old != new)
    README.write_text(before + START + new + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
