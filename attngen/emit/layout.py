"""Calls and signatures that are too wide, one argument a line, as a formatter would write them.

state = attend(state, lo, hi)   ->   state = attend(
                                         state,
                                         lo,
                                         hi,
                                     )
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from attngen.emit.prose import WIDTH

_STRING = re.compile(r'"[^"]*"|\'[^\']*\'')


def fitted(text: str) -> str:
    """The module's text with its wide lines of code opened; strings, comments and docstrings stay."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    quoted = False
    before = ""
    for line in lines:
        is_prose = quoted or line.count('"""') > 0 or line.lstrip().startswith("#")
        quoted ^= line.count('"""') % 2 == 1
        if len(line) <= WIDTH or is_prose:
            yield line
        else:
            yield from _opened(line, inside=before.endswith("("))
        before = line


def _opened(line: str, *, inside: bool) -> Iterator[str]:
    """``inside``: the line holds the arguments of a call that the line before opened."""
    indent = line[: len(line) - len(line.lstrip())]
    cuts = _cuts(line, 0) if inside else []
    if cuts:
        yield from _arguments(line, 0, len(line.rstrip(",")), cuts, indent)
        return
    place = _bracket(line)
    if place is None:
        yield line
        return
    start, end = place
    inner = line[start + 1 : end]
    cuts = _cuts(line, start + 1)
    yield line[: start + 1]
    if len(indent) + 4 + len(inner) <= WIDTH and not line.lstrip().startswith("def "):
        yield f"{indent}    {inner}"
    else:
        yield from _arguments(line, start + 1, end, cuts, indent + "    ")
    yield indent + line[end:]


def _arguments(line: str, start: int, end: int, cuts: list[int], indent: str) -> Iterator[str]:
    for first, last in zip([start, *(c + 1 for c in cuts)], [*cuts, end], strict=True):
        argument = line[first:last].strip()
        if argument:
            opened = f"{indent}{argument},"
            yield from [opened] if len(opened) <= WIDTH else _opened(opened, inside=False)


def _masked(line: str) -> str:
    """The line with its strings blanked, so that brackets and commas in them do not count."""
    return _STRING.sub(lambda match: " " * len(match.group()), line)


def _cuts(line: str, start: int) -> list[int]:
    """Where the outermost commas behind ``start`` stand, up to the bracket that closes what is open there."""
    found, depth = [], 0
    for place, character in enumerate(_masked(line)[start:], start):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0:
            break
        if character == "," and depth == 0:
            found.append(place)
    return found


def _bracket(line: str) -> tuple[int, int] | None:
    """The last outermost parentheses of a call or signature: where they stand."""
    masked = _masked(line)
    depth, start, found = 0, 0, None
    for place, character in enumerate(masked):
        if character in "([{":
            start = place if depth == 0 else start
            depth += 1
        elif character in ")]}":
            depth -= 1
            if (
                depth == 0
                and masked[start] == "("
                and (masked[start - 1].isalnum() or masked[start - 1] == "_")
            ):
                found = (start, place) if place > start + 1 else found
    return found if depth == 0 else None
