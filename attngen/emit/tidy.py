"""Small things that loops and conditions of the templates leave behind, as a formatter would write them.

``x, = own``  ->  ``(x,) = own``; what a bracket holds on one line of its own goes up to it where there is
room; a docstring of one line ends on it; a section begins two empty lines after a body.
"""

from __future__ import annotations

import ast
import contextlib
import re
from collections.abc import Iterator

from attngen.emit.prose import WIDTH

_ONE_TUPLE = re.compile(r"( *)(\w+), = (\w+)")
_SECTION = "# ----"


def tidied(text: str) -> str:
    """The module's text, its meaning unchanged: the same code, and the words of its docstrings and comments.
    No trailing blanks, at most two empty lines in a row, one line end at the end."""
    lines = list(_spaced(text.split("\n")))
    return "\n".join(_joined([_ONE_TUPLE.sub(r"\1(\2,) = \3", line) for line in lines])).rstrip("\n") + "\n"


def _spaced(lines: list[str]) -> Iterator[str]:
    empty, before = 0, ""
    for line in map(str.rstrip, lines):
        if not line:
            empty += 1
            continue
        wanted = 2 if line.startswith(_SECTION) and before.startswith(" ") else min(empty, 2)
        yield from [""] * wanted
        yield line
        empty, before = 0, line


def _joined(lines: list[str]) -> Iterator[str]:
    quoted, place = False, 0
    while place < len(lines):
        line = lines[place]
        if not quoted and (one := _one_line(lines[place : place + 3])) is not None:
            yield one[0]
            place += one[1]
            continue
        quoted ^= line.count('"""') % 2 == 1
        yield line
        place += 1


def _one_line(lines: list[str]) -> tuple[str, int] | None:
    """What the first two or three lines are as one, and how many they are; None where they stay apart."""
    first, second = lines[0], lines[1].strip() if len(lines) > 1 else ""
    if second == '"""' and first.lstrip().startswith('"""') and first.count('"""') == 1:
        one, count = first + second, 2
        return (one, count) if not first.endswith(('"', "\\")) and len(one) <= WIDTH else None
    third = lines[2].strip() if len(lines) > 2 else ""
    if not first.endswith("(") or not re.match(r"\)[^#]*$", third) or first.lstrip().startswith("#"):
        return None
    if "#" in first + second or second.count("(") != second.count(")"):
        return None
    # A comma at the end says that each item has a line, but it makes a tuple of one item.
    is_tuple = first.endswith((" = (", "return (")) and _is_one_item(second)
    one = first + second + third
    return (one, 3) if len(one) <= WIDTH and (is_tuple or not second.endswith((",", "("))) else None


def _is_one_item(text: str) -> bool:
    """Whether this is a tuple of one item without its brackets."""
    with contextlib.suppress(SyntaxError):
        body = ast.parse(text).body[0]
        value = body.value if isinstance(body, ast.Expr) else None
        return isinstance(value, ast.Tuple) and len(value.elts) == 1
    return False
