"""Where the ranges hold tiles that keep nothing: whether a program should look before it visits tiles.

    abs(q // 32 % 32 - k // 32 % 32) <= 2 and ...     by corners: pairs of tiles that keep nothing, proven
    causal and keep[q, k]                             after a look: a table may leave any tile empty
    (q // 64)**2 % 7 == (k // 64)**2 % 7              after a look: most tiles, tried here, keep nothing
    abs(q % 128 - k % 128) <= 6 and ...               no: of each tile a corner at least is kept
    dist % 4 == 0                                     no: no tile is empty

A program that picks lists the tiles ahead, from their corners or from a kernel's look at the mask, and then
streams those that may keep something. A branch inside the loop would keep its loads from running ahead; a
list of tiles does not.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from attngen.analysis.block_range import Range, open_conditions
from attngen.analysis.pair import may_keep
from attngen.analysis.pieces import known_values, usual
from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import Expr, Input, Op, leaves, postorder

_TILE = 64  # positions, on either side
_LENGTH = 8192  # a usual shape: as many queries as keys
_ROWS = (832, 2432, 4032, 5632, 7232)  # where the tiles of queries begin that stand for all
_LEAST_TILES = 6  # that a tile of queries visits, for a look to be worth it
_LEAST_EMPTY = 0.2  # of the tiles
_MOST_MISSED = 0.5  # of the tiles, where a few scores of each are looked at
_LOOKED_AT, _POINTS = 16, 64  # tiles, and scores of each beside its corners
# A tile at the edge of a band keeps some scores around a corner, and hardly any of those spread over it.
_TRIED = (
    *((q, k) for q in (0, _TILE - 1) for k in (0, _TILE - 1)),
    *((n * 37 % _TILE, n * 11 % _TILE) for n in range(_POINTS)),
)

Places = Mapping[str, int]  # of words


@dataclass(frozen=True)
class Picks:
    """How tiles are picked: by ``may_keep`` of the corners; None: after a look at the mask."""

    may_keep: Expr | None


def picks(mask: Expr, inputs: tuple[Input, ...], ranges: tuple[Range, ...]) -> Picks | None:
    """Whether and how tiles of keys are picked from ``ranges``, which hold all that queries may keep."""
    pairs = list(_usual_pairs(ranges))
    if len(pairs) < _LEAST_TILES * len(_ROWS):
        return None
    condition = may_keep(mask, inputs)
    order = postorder(condition)
    empty = sum(known_values(order, places)[condition] is False for places in pairs)
    if empty >= _LEAST_EMPTY * len(pairs):
        return Picks(condition)
    conditions = open_conditions(mask, inputs)
    reads = leaves(*conditions, op=Op.LOAD)
    if any(rate_of(node) > Rate.PROGRAM for node in reads):
        return Picks(None)  # the call's data decide
    return Picks(None) if conditions and _share_missed(mask, pairs) >= _MOST_MISSED else None


def _usual_pairs(ranges: tuple[Range, ...]) -> Iterator[Places]:
    """The corners of tiles of queries, each with those of the tiles of keys that it visits."""
    for first in _ROWS:
        rows = {"q_first": first, "q_last": first + _TILE - 1, "q_len": _LENGTH, "k_len": _LENGTH}
        for n in sorted({n for r in ranges for n in _tiles(r, rows)}):
            yield rows | {"k_first": n, "k_last": n + _TILE - 1}


def _share_missed(mask: Expr, pairs: Sequence[Places]) -> float:
    """The share of some tiles in which none of the same few scores is kept, or may be as the call is."""
    order = postorder(mask)
    chosen = pairs[:: max(1, len(pairs) // _LOOKED_AT)]
    return sum(not any(_keeps(order, places, at) for at in _TRIED) for places in chosen) / len(chosen)


def _keeps(order: Sequence[Expr], places: Places, at: tuple[int, int]) -> bool:
    q, k = places["q_first"] + at[0], places["k_first"] + at[1]
    point = {"q": q, "pos": q, "k": k, "q_len": _LENGTH, "k_len": _LENGTH}
    return known_values(order, point)[order[-1]] is not False


def _tiles(one: Range, rows: Places) -> range:
    low = usual(one.possible.lo, rows) if one.possible.lo else 0
    high = usual(one.possible.hi, rows) if one.possible.hi else _LENGTH
    return range(max(low, 0) // _TILE * _TILE, min(high, _LENGTH), _TILE)
