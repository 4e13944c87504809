"""Which parts of a range get a loop without a mask: those that a whole tile may fit into.

    k < 3                 all keep [0, 3)                            no tile has so few keys: masked
    abs(dist) <= 3        all keep [q_last - 3, q_first + 4)         7 keys at most: masked
    causal or k < 3       all keep [0, max(q_first + 1, 3))          as long as the sequence: a loop

Else the kernel would hold a copy of its loop that never runs.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from attngen.analysis.block_range import Bound, Range
from attngen.analysis.linear import Linear, Sums
from attngen.ir.nodes import Expr, Op


def with_room(ranges: Iterable[Range], tile: int) -> tuple[Range, ...]:
    """The ranges, their ``certain`` part None where it is sure to be shorter than ``tile`` positions."""
    return tuple(
        replace(r, certain=None) if r.certain is not None and _is_shorter(r.certain, tile) else r
        for r in ranges
    )


def _is_shorter(bound: Bound, tile: int) -> bool:
    if bound.hi is None:
        return False
    sums = Sums()
    los = [Linear(), *map(sums.of, _parts(Op.MAX, bound.lo))]  # a kernel clips a lower end to 0
    room = Linear(constant=tile - 1)
    return any(
        sums.never_negative(room.plus(lo).plus(sums.of(hi), -1))
        for hi in _parts(Op.MIN, bound.hi)
        for lo in los
    )


def _parts(op: Op, end: Expr | None) -> Iterator[Expr]:
    """What ``end`` is the greatest of (MAX), or the least of (MIN)."""
    stack = [] if end is None else [end]
    while stack:
        node = stack.pop()
        if node.op is op:
            stack += node.args
        else:
            yield node
