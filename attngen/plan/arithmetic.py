"""How the kernels compute each number: its width, its rounding, and which indices need a clamp.

table[h, clamp(dist, 0, 31)]    ->    no clamp: both indices lie inside
q * k                           ->    in 64 bits: the product may pass int32
floor(x / y)                    ->    a division that rounds as IEEE's does
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.analysis.decisive import rounded_alone
from attngen.analysis.interval import Interval, Values, fits_int32
from attngen.analysis.within import Within
from attngen.ir.nodes import SEARCHES, AttentionIR, Expr, Op
from attngen.ir.types import Type


@dataclass(frozen=True)
class Arithmetic:
    """What holds of every node: its interval, whether an INT is ``wide``, whether an operation is ``alone``.

    ``wide`` INT nodes are computed in 64 bits. ``alone`` operations round one by one (see
    ``analysis.decisive``); the others may be approximate, and fused.
    """

    intervals: Mapping[Expr, Interval]
    wide: frozenset[Expr]
    alone: frozenset[Expr]
    within: Within

    def starts_inside(self, index: Expr) -> bool:
        """Whether an index is never below 0."""
        return self.within.never_negative(index)

    def ends_inside(self, index: Expr, dim: int | str) -> bool:
        """Whether an index never passes the end of its dimension."""
        return self.within.never_beyond(index, dim)

    def divides_plainly(self, node: Expr) -> bool:
        """Whether rounding down and toward zero are one for this ``//`` or ``%``, and no divisor is 0."""
        x, y = (self.intervals[a] for a in node.args)
        return x.lo >= 0 and y.lo > 0


def arithmetic(*roots: Expr, ir: AttentionIR) -> Arithmetic:
    """Decide for every node under ``roots``, which are expressions of ``ir``."""
    values = Values({i.name: i.dtype for i in ir.inputs})
    for root in roots:
        values.of(root)
    intervals = dict(values.known)
    return Arithmetic(intervals, _wide(intervals, ir), rounded_alone(intervals), Within(values))


def _wide(intervals: Mapping[Expr, Interval], ir: AttentionIR) -> frozenset[Expr]:
    """What may pass int32, what is read as int64, and what is computed from such a number."""
    int64 = {i.name for i in ir.inputs if i.dtype == "int64"}
    wide: set[Expr] = set()
    for node, interval in intervals.items():  # operands before users
        if node.type is not Type.INT:
            continue
        if node.op in SEARCHES:
            is_wide = False  # an index
        elif node.op is Op.LOAD:
            is_wide = node.value in int64
        else:
            is_wide = not fits_int32(interval) or not wide.isdisjoint(node.args)
        if is_wide:
            wide.add(node)
    return frozenset(wide)
