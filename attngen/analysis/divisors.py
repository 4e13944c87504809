"""Divisors that only the call knows: solved as if they were positive, and guarded where they may not be.

    k // n <= 3     ->   n > 0: k < 3 * max(n, 1) + max(n, 1), in closed form; else every key

``max(n, 1)`` is what stands for such a divisor, so that everything made from it is right, if not of use,
where n is 0 or negative.
"""

from __future__ import annotations

from functools import reduce

from attngen.analysis.interval import Values
from attngen.analysis.rates import Rate, rates
from attngen.ir.nodes import TRUE, Expr, Op, const, make, postorder, remake

_MOST = 4  # of one mask; with more, they stay as they are
_SCALAR = (Rate.LAUNCH, Rate.PROGRAM)


def guarded(mask: Expr, values: Values) -> tuple[Expr, Expr]:
    """A condition of scalars, and the mask where it holds: each divisor of what varies is positive there."""
    known = rates(mask)
    order = postorder(mask)
    found = {
        node.args[1]: make(Op.MAX, node.args[1], const(1))
        for node in order
        if node.op in (Op.FLOORDIV, Op.MOD)
        and known[node.args[1]] in _SCALAR
        and known[node.args[0]] not in _SCALAR
        and _has_open_sign(node.args[1], values)
    }
    if not 0 < len(found) <= _MOST:
        return TRUE, mask
    new: dict[Expr, Expr] = {}
    for node in order:
        args = tuple(new[a] for a in node.args)
        if node.op in (Op.FLOORDIV, Op.MOD) and node.args[1] in found:
            args = args[0], found[node.args[1]]
        new[node] = remake(node, args)
    conditions = (make(Op.LT, const(0), divisor) for divisor in found)
    return reduce(lambda one, other: make(Op.AND, one, other), conditions), new[mask]


def _has_open_sign(divisor: Expr, values: Values) -> bool:
    interval = values.of(divisor)
    return interval.lo <= 0 < interval.hi
