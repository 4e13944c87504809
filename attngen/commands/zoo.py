"""``attngen zoo``: the ready specs."""

from __future__ import annotations

from attngen.ir.build import build
from attngen.source import Source
from attngen.spec_file import find_spec, zoo_names
from attngen.syntax.parse import parse


def listing() -> list[tuple[str, str]]:
    """``(name, what it is in one line)`` for each spec of the zoo."""
    return [(name, summary(find_spec(name))) for name in zoo_names()]


def summary(source: Source) -> str:
    """The first line of a spec's docstring; empty without one."""
    doc = build(parse(source), source).doc.strip()
    return doc.splitlines()[0] if doc else ""
