"""The sections of an emitted file, named at its head with the lines they begin at."""

from __future__ import annotations

import re

_SECTION = re.compile(r"# ---- (.+?) -+")


def with_contents(text: str) -> str:
    """The module's text, with a table of contents at the end of its docstring."""
    lines = text.split("\n")
    end = lines.index('"""') + 1  # of the docstring, whose last line holds the quotes alone
    found = [(n, m[1]) for n, line in enumerate(lines, 1) if n > end and (m := _SECTION.fullmatch(line))]
    head = ["", "Sections and their lines:", ""]
    shift = len(head) + len(found)
    contents = [f"    {n + shift:>4}  {name}" for n, name in found]
    return "\n".join([*lines[: end - 1], *head, *contents, *lines[end - 1 :]])
