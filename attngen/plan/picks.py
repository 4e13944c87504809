"""Where no closed form bounds the keys: whether a program should look before it visits tiles.

    abs(q // 32 % 32 - k // 32 % 32) <= 2 and ...     by corners: pairs of tiles that keep nothing, proven
    causal and keep[q, k]                             by scores: a table may leave any tile empty
    dist % 4 == 0                                     no: no tile is empty

A program that picks judges the tiles ahead, from their corners or by evaluating the mask, and then streams
those that may keep something. A branch inside the loop would keep its loads from running ahead; a list of
tiles does not.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.block_range import Range, open_conditions
from attngen.analysis.pair import may_keep
from attngen.analysis.pieces import usual
from attngen.analysis.rates import Rate, rate_of
from attngen.analysis.simplify import simplify
from attngen.ir.nodes import FALSE, Expr, Input, Op, const, leaves, substitute, word

_TILE = 64  # positions, on either side
_LEAST_TILES = 8  # of a range, for a look to be worth it
_LEAST_EMPTY = 0.25  # of the tiles


@dataclass(frozen=True)
class Picks:
    """How tiles are picked: by ``may_keep`` of the corners, or where that is None by the mask itself."""

    may_keep: Expr | None


def picks(mask: Expr, inputs: tuple[Input, ...], hull: Range) -> Picks | None:
    """Whether and how tiles of keys are picked from ``hull``, which holds all that queries may keep."""
    conditions = open_conditions(mask, inputs)
    tiles = _usual_tiles(hull)
    if not conditions or len(tiles) < _LEAST_TILES:
        return None
    reads = leaves(*conditions, op=Op.LOAD)
    if any(rate_of(node) > Rate.PROGRAM for node in reads):
        return Picks(None)  # the call's data decide
    condition = may_keep(mask, inputs)
    return Picks(condition) if _share_empty(condition, tiles) >= _LEAST_EMPTY else None


def _usual_tiles(hull: Range) -> range:
    """Where the tiles of keys begin that a tile of queries visits at a usual shape."""
    length = usual(word("k_len"))
    low = usual(hull.possible.lo) if hull.possible.lo else 0
    high = usual(hull.possible.hi) if hull.possible.hi else length
    return range(max(low, 0) // _TILE * _TILE, min(high, length), _TILE)


def _share_empty(condition: Expr, tiles: range) -> float:
    """The share of tiles that provably keep nothing, at a usual shape with as many queries as keys."""
    first = usual(word("q_first"))
    places = {"q_first": first, "q_last": first + _TILE - 1}
    places |= {name: usual(word(name)) for name in ("q_len", "k_len")}
    known = {word(name): const(value) for name, value in places.items()}
    empty = 0
    for n in tiles:
        here = {word("k_first"): const(n), word("k_last"): const(n + _TILE - 1)}
        empty += simplify(substitute(condition, known | here)) is FALSE
    return empty / len(tiles)
