"""How often a value changes: once a launch, a program, a row, a column, or for every score.

A value is computed where it changes, and no deeper: ``window + 1`` before the launch, ``slopes[h]`` once a
program, ``q % 64`` once a row of the tile, ``k // 64`` once a column, ``abs(dist)`` for each score.

    slopes[h] * abs(pos - k)   ->   slopes[h]: PROGRAM, pos: ROW, k: COLUMN, the rest: TILE
"""

from __future__ import annotations

from enum import IntEnum

from attngen.analysis.walk import fresh
from attngen.ir.nodes import SEARCHES, Expr, Op


class Rate(IntEnum):
    """Ordered by depth of the loop, but ROW and COLUMN are beside each other: use ``join``."""

    LAUNCH = 0  # consts, params and sizes
    PROGRAM = 1  # b, h, h_kv, a tile's corners, and what is loaded by them
    ROW = 2  # q or pos, not k
    COLUMN = 3  # k, not q
    TILE = 4  # both, or the score


def join(first: Rate, second: Rate) -> Rate:
    """The rate of a value made of two others."""
    if {first, second} == {Rate.ROW, Rate.COLUMN}:
        return Rate.TILE
    return max(first, second)


_WORDS = {"q": Rate.ROW, "pos": Rate.ROW, "k": Rate.COLUMN}
_PROGRAM_WORDS = ("b", "h", "h_kv", "q_first", "q_last", "k_first", "k_last")
_WORDS.update(dict.fromkeys(_PROGRAM_WORDS, Rate.PROGRAM))


def _rate(node: Expr, known: dict[Expr, Rate]) -> Rate:
    if node.op in (Op.SCORE, Op.WEIGHT, Op.DOT):
        return Rate.TILE
    # A load is a memory access even at constant indices: it belongs into the program.
    rate = Rate.PROGRAM if node.op in (Op.LOAD, Op.VECTOR, *SEARCHES) else Rate.LAUNCH
    if node.op is Op.WORD:
        rate = _WORDS.get(str(node.value), Rate.LAUNCH)
    for arg in node.args:
        rate = join(rate, known[arg])
    return rate


def rates(*roots: Expr) -> dict[Expr, Rate]:
    """The rate of every node under ``roots``."""
    known: dict[Expr, Rate] = {}
    for root in roots:
        extend(known, root)
    return known


def extend(known: dict[Expr, Rate], root: Expr) -> Rate:
    """The rate of ``root``, adding what is new under it to ``known``."""
    for node in fresh(root, known):
        known[node] = _rate(node, known)
    return known[root]


def rate_of(expr: Expr) -> Rate:
    """The rate of one expression."""
    return rates(expr)[expr]
