"""Values that depend on a query and a key by their distance alone, and from where on they stay the same.

    clamp(pos - k, -128, 128) + 128  ->  clamp(dist, -128, 128) + 128: one from 128 on, and one up to -128

Such a value is constant along the diagonals of a tile of scores. Beyond the *reach*, ``low < dist < high``,
it is constant altogether, as interval arithmetic proves; the ends are the nearest for which it can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from attngen.analysis.interval import intervals
from attngen.analysis.linear import Linear, Sums, to_expr
from attngen.ir.nodes import Expr, Op, const, leaves, make, mentions, param, postorder, remake, word
from attngen.ir.types import Type

#: The distance ``pos - k`` as a leaf. No spec can have it: it is a word of the language.
DIST = param("dist", Type.INT)

#: No distance is as far as this, so that a reach up to here has no end.
NOWHERE = 2**30

_POSITION, _OFFSET = Linear({word("q"): 1, word("k"): -1}), (word("k_len"), word("q_len"))


@dataclass(frozen=True)
class Reach:
    """A value is one and the same for ``dist >= high``, and for ``dist <= low``."""

    low: int
    high: int

    @property
    def ends_behind(self) -> bool:
        """Whether there are keys so far behind the query that the value no longer changes."""
        return self.high < NOWHERE

    @property
    def ends_ahead(self) -> bool:
        return self.low > -NOWHERE

    def hull(self, other: Reach) -> Reach:
        return Reach(min(self.low, other.low), max(self.high, other.high))


def over_distance(root: Expr) -> Expr | None:
    """An expression over ``DIST`` that equals ``root``, or None where it depends on more of q and k."""
    sums = Sums()
    new: dict[Expr, Expr] = {}
    for node in postorder(root):
        new[node] = _spelled(node, sums) or remake(node, tuple(new[a] for a in node.args))
    result = new[root]
    depends = any(leaves(result, op=Op.SCORE)) or mentions(result, "q", "k", "pos")
    return None if depends else result


def _spelled(node: Expr, sums: Sums) -> Expr | None:
    """A sum with ``n * (q - k)`` in it, with ``n * (DIST - (k_len - q_len))`` there instead."""
    if node.op not in (Op.ADD, Op.SUB, Op.NEG) or node.type is not Type.INT:
        return None
    form = sums.of(node)
    count = form.terms.get(word("q"), 0)
    if count == 0 or form.terms.get(word("k"), 0) != -count:
        return None
    k_len, q_len = _OFFSET
    rest = form.plus(_POSITION, -count).plus(Linear({k_len: 1, q_len: -1}), -count)
    if any(mentions(term, "q", "k", "pos") for term in rest.terms):
        return None
    distance = DIST if abs(count) == 1 else make(Op.MUL, DIST, const(abs(count)))
    if not rest.terms and rest.constant == 0:
        return distance if count > 0 else make(Op.NEG, distance)
    return make(Op.ADD if count > 0 else Op.SUB, to_expr(rest), distance)


def reach_of(over_dist: Expr, dtypes: Mapping[str, str]) -> Reach:
    """The shortest reach of an INT expression over ``DIST`` that intervals can prove."""

    def is_constant(distances: Expr) -> bool:
        moved = _at(over_dist, distances)
        value = intervals(moved, dtypes=dtypes)[moved]
        return value.lo == value.hi

    beyond = word("k")  # any number from 0 up
    high = _first(lambda d: is_constant(make(Op.ADD, const(d), beyond)))
    low = _first(lambda d: is_constant(make(Op.SUB, const(-d), beyond)))
    return Reach(-low, high)


def value_at(over_dist: Expr, distance: int) -> Expr:
    """An INT expression over ``DIST`` at the end of its reach or beyond: a constant if it depends on it."""
    value = _at(over_dist, const(distance))
    known = intervals(value, dtypes={})[value]
    return const(int(known.lo)) if value is not over_dist and known.lo == known.hi else value


def _at(root: Expr, distance: Expr) -> Expr:
    new: dict[Expr, Expr] = {}
    for node in postorder(root):
        new[node] = distance if node is DIST else remake(node, tuple(new[a] for a in node.args))
    return new[root]


def _first(holds: Callable[[int], bool]) -> int:
    """The least number from ``-NOWHERE`` on from where a property holds that, once it holds, always does."""
    if not holds(NOWHERE - 1):
        return NOWHERE
    low, high = -NOWHERE, NOWHERE - 1
    while low < high:
        middle = (low + high) // 2
        if holds(middle):
            high = middle
        else:
            low = middle + 1
    return low
