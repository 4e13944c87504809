"""Spec text inside the module: folded to the width of its lines, escaped where it stands in a string."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable

WIDTH = 110  # columns of an emitted line


def comment(lines: Iterable[str], indent: int) -> tuple[str, ...]:
    """Comment lines that will stand behind ``indent`` blanks."""
    return tuple(f"# {part}" for line in lines for part in folded(line, WIDTH - indent - 2))


def folded(line: str, width: int = WIDTH) -> list[str]:
    """A line cut at blanks where it is wider than ``width``, its continuation indented; at least one line."""
    indent = line[: len(line) - len(line.lstrip())] + "    "
    wrapper = textwrap.TextWrapper(
        width, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    return wrapper.wrap(line) or [""]


def bullet(text: str, width: int) -> list[str]:
    """A sentence or two as an item of a list: ``- `` before the first line, the others indented as it is."""
    return textwrap.wrap(
        text,
        width,
        initial_indent="- ",
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def paragraph(text: str) -> str:
    """Running text, line by line no wider than the module, as it may stand inside triple quotes."""
    lines = (textwrap.wrap(line, WIDTH, break_long_words=False) or [""] for line in text.split("\n"))
    return escaped("\n".join(part for parts in lines for part in parts))


def escaped(text: str) -> str:
    """ASCII that Python, inside triple quotes, reads back as ``text``."""
    text = text.replace("\\", "\\\\").replace('"""', '\\"\\"\\"')
    return text.encode("ascii", "backslashreplace").decode()
