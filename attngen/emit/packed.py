"""Long signatures and calls by what their items are: tensors, numbers and constants begin lines of their own.

def kernel(                     def kernel(
    Q,                              Q, K, Out,
    K,                              q_strides, k_strides,
    Out,                            heads, q_len, scale,
    q_strides,                      BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
    k_strides,            ->    ):
    heads,
    q_len,
    scale,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):

With one item a line, as formatters write them, a kernel's signature fills a screen, and so does a launch.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from enum import IntEnum
from itertools import accumulate, groupby, pairwise
from operator import itemgetter

from attngen.emit.layout import commas
from attngen.emit.prose import WIDTH

_OPENING = re.compile(r".*[\w\]]\(")
_NAMED = re.compile(r"\w+=|\*\*")
_SIZES = re.compile(r"\*sizes_of|\w+\.shape\[|tiles\b|padded\b")
_CONSTANT = re.compile(r"[A-Z][A-Z0-9_]*|True|False|None")


class _Kind(IntEnum):
    """In the order in which a signature or a call has them; one that comes late stays with those before."""

    KERNEL = 0  # what a launch runs, and its grid
    TENSOR = 1  # Q
    STRIDES = 2  # q_strides
    NUMBER = 3  # q_len
    CONSTANT = 4  # BLOCK_M: tl.constexpr, or MASKED at the end of a call
    NAMED = 5  # seed=None


def packed(text: str) -> str:
    """The module's text; each signature and call that holds an item a line with as few lines as its kinds
    of items allow, comments and strings of several lines as they are."""
    return "\n".join(_lines(text.split("\n")))


def _lines(lines: list[str]) -> Iterator[str]:
    quoted, place = False, 0
    while place < len(lines):
        line = lines[place]
        items, count = ([], 0) if quoted or line.lstrip().startswith("#") else _items(lines, place)
        if items:
            yield from _written(line, items, lines[place + count + 1].strip())
            place += count + 2
            continue
        quoted ^= line.count('"""') % 2 == 1
        yield line
        place += 1


def _items(lines: list[str], place: int) -> tuple[list[str], int]:
    """The items in the bracket that this line opens, and their lines; none if these hold anything else, or if
    the last one has no comma: then they are on one line already."""
    opening = lines[place]
    indent = opening[: len(opening) - len(opening.lstrip())]
    found: list[str] = []
    if not _OPENING.fullmatch(opening):
        return [], 0
    for count, line in enumerate(lines[place + 1 :]):
        if line.startswith(indent + ")"):
            return found, count
        is_inside = line.startswith(indent + "    ") and line[len(indent) + 4] != " "
        if not is_inside or "#" in line or not line.endswith(",") or not _is_closed(line):
            break
        ends = [-1, *commas(line, 0)]
        found += [line[a + 1 : b].strip() for a, b in pairwise(ends)]
    return [], 0


def _is_closed(line: str) -> bool:
    return all(line.count(a) == line.count(b) for a, b in ("()", "[]", "{}")) and line.count('"') % 2 == 0


def _written(opening: str, items: list[str], closing: str) -> Iterator[str]:
    indent = opening[: len(opening) - len(opening.lstrip())]
    inner = ", ".join(items)
    if len(opening) + len(inner) + len(closing) <= WIDTH:
        yield f"{opening}{inner}{closing}"
        return
    yield opening
    if len(indent) + 4 + len(inner) <= WIDTH:
        yield f"{indent}    {inner}"
    else:
        for group in _groups(items, is_signature=opening.lstrip().startswith("def ")):
            yield from _filled(group, indent + "    ")
    yield indent + closing


def _groups(items: list[str], *, is_signature: bool) -> list[list[str]]:
    """The items in their order, cut where a later kind begins."""
    kinds = [_kind(item) for item in items] if is_signature else _kinds_in_call(items)
    ranked = zip(accumulate(kinds, max), items, strict=True)
    return [[item for _, item in group] for _, group in groupby(ranked, itemgetter(0))]


def _kind(item: str) -> _Kind:
    """Of a parameter."""
    name, _, annotation = item.partition(": ")
    if annotation.endswith("constexpr"):
        return _Kind.CONSTANT
    if "=" in item:
        return _Kind.NAMED
    if name[0].isupper():
        return _Kind.TENSOR
    return _Kind.STRIDES if name.endswith("_strides") else _Kind.NUMBER


def _kinds_in_call(items: list[str]) -> list[_Kind]:
    """Of arguments. Constants are what they end with; those of a launch tell by how they begin."""
    is_launch = items[0].endswith("_kernel")
    kinds = [_kind_in_launch(item) if is_launch else _Kind.NUMBER for item in items]
    kinds = [_Kind.NAMED if _NAMED.match(item) else kind for item, kind in zip(items, kinds, strict=True)]
    if is_launch:
        kinds[:2] = [_Kind.KERNEL] * 2
    for n in reversed(range(len(kinds) - kinds.count(_Kind.NAMED))):
        if not _CONSTANT.fullmatch(items[n]):
            break
        kinds[n] = _Kind.CONSTANT
    return kinds


def _kind_in_launch(item: str) -> _Kind:
    if "strides" in item:
        return _Kind.STRIDES
    return _Kind.NUMBER if _SIZES.match(item) else _Kind.TENSOR


def _filled(items: list[str], indent: str) -> Iterator[str]:
    line = ""
    for item in items:
        if line and len(indent) + len(line) + len(item) + 2 > WIDTH:
            yield indent + line
            line = ""
        line += f"{' ' if line else ''}{item},"
    yield indent + line
