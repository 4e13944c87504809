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

_UNPACKED = re.compile(r" *(?P<names>\w+(, \w+)+) = (?P<value>\w+)")
_RETURNED = re.compile(r" *return (?P<values>.+)")
_QUIET = re.compile(r'"[^"]*"|\'[^\']*\'|#.*')


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
    cuts = commas(line, 0) if inside else []
    if cuts:
        yield from _arguments(line, 0, len(line.rstrip(",")), cuts, indent)
        return
    unpacked, returned = _UNPACKED.fullmatch(line), _RETURNED.fullmatch(line)
    if unpacked:
        line = f"{indent}({unpacked['names']}) = {unpacked['value']}"
    elif returned and commas(line, returned.start("values")):
        line = f"{indent}return ({returned['values']})"
    place = _bracket(line)
    if place is None:
        yield line
        return
    start, end = place
    inner = line[start + 1 : end]
    cuts = commas(line, start + 1)
    yield line[: start + 1]
    if len(indent) + 4 + len(inner) <= WIDTH and not line.lstrip().startswith("def "):
        yield f"{indent}    {inner}"
    else:
        yield from _arguments(line, start + 1, end, cuts, indent + "    ")
    yield indent + line[end:]


def _arguments(line: str, start: int, end: int, cuts: list[int], indent: str) -> Iterator[str]:
    for first, last in zip([start, *(c + 1 for c in cuts)], [*cuts, end], strict=True):
        argument = line[first:last].strip()
        if not argument:
            continue
        opened = f"{indent}{argument},"
        terms = _terms(argument) if len(opened) > WIDTH else []
        for part in (
            [*(f"{indent}{term}" for term in terms[:-1]), f"{indent}{terms[-1]},"] if terms else [opened]
        ):
            if len(part) <= WIDTH:
                yield part
            else:
                yield from _opened(part, inside=False)


def _terms(text: str) -> list[str]:
    """The terms of a sum, each but the first behind its sign; none if it is no sum."""
    masked = _masked(text)
    places, depth = [0], 0
    for place, character in enumerate(masked):
        depth += (character in "([{") - (character in ")]}")
        if depth == 0 and masked.startswith(" + ", place):
            places.append(place + 1)
    ends = [*(p - 1 for p in places[1:]), len(text)]
    return [text[p:e] for p, e in zip(places, ends, strict=True)] if len(places) > 1 else []


def _masked(line: str) -> str:
    """The line with strings and comment blanked, so that brackets and commas in them do not count."""
    return _QUIET.sub(lambda match: " " * len(match.group()), line)


def commas(line: str, start: int) -> list[int]:
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
    """The longest outermost brackets of a call, a signature, a tuple or a list: where they stand."""
    masked = _masked(line)
    depth, start, found = 0, 0, (0, 0)
    for place, character in enumerate(masked):
        if character in "([{":
            start = place if depth == 0 else start
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0 and _holds_items(masked, start):
                found = max(found, (start, place), key=lambda span: span[1] - span[0])
    return found if depth == 0 and found[1] > found[0] + 1 else None


def _holds_items(masked: str, start: int) -> bool:
    """Whether each item in the brackets may take a line: those of a call, a tuple or a list."""
    follows = masked[start - 1].isalnum() or masked[start - 1] == "_"
    if follows:
        return masked[start] == "("
    return masked[start - 1] not in ")]" and bool(commas(masked, start + 1))
