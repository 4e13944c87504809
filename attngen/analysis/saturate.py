"""Loop bounds that wrap around for no input: a value is held back where the clip to the sequence cannot tell.

    last[b] + 1                 ->  min(last[b], 2**62) + 1      an int64 input; for an int32 one it stays
    last[b] - first[b] + 1      ->  None: both may be far out, so neither can be held back

A bound's maths is exact (``block_range`` takes only comparisons in which nothing wraps), but 64 bits compute
it. Each node here has a *reach*: within it the computed value is the exact one, beyond it the computed value
lies beyond it too, on the same side. A reach beyond every length is as good as exact.
"""

from __future__ import annotations

from collections.abc import Callable

from attngen.analysis.interval import INF, Number, Values, fits_int64
from attngen.ir.nodes import Expr, Op, const, make, postorder, remake
from attngen.ir.types import Type

_FAR = 2**62  # where values are held back: two of them still add up within int64
_ENOUGH = 2**31  # beyond every length

Held = tuple[Expr, Number] | None  # an expression and its reach; None: not to be computed in 64 bits


class Saturation:
    """Bounds made safe, each node once."""

    def __init__(self, values: Values) -> None:
        self._values = values
        self._known: dict[Expr, Held] = {}

    def end(self, root: Expr) -> Expr | None:
        """An INT expression that 64 bits compute to what ``root`` is exactly, once both are clipped."""
        for node in postorder(root):
            if node not in self._known:
                self._known[node] = self._held(node)
        held = self._known[root]
        return held[0] if held is not None and held[1] >= _ENOUGH else None

    def _held(self, node: Expr) -> Held:
        if not node.args or node.op is Op.LOAD or node.args[0].type is Type.FLOAT or node.type is Type.FLOAT:
            is_exact = node.type is not Type.INT or fits_int64(self._values.of(node))
            return (node, INF) if is_exact else None
        parts = [part for a in node.args if (part := self._known[a]) is not None]
        if len(parts) < len(node.args):
            return None
        reach = min(r for _, r in parts)
        args = tuple(expr for expr, _ in parts)
        if reach == INF and (node.type is Type.BOOL or fits_int64(self._values.of(remake(node, args)))):
            return remake(node, args), INF
        if node.type is Type.BOOL:
            return self._truth(node, parts)
        if node.op in (Op.MIN, Op.MAX, Op.CLAMP, Op.WHERE):
            return remake(node, args), reach
        if node.op in (Op.NEG, Op.ABS):
            return self._fitting(lambda x: make(node.op, x), args[0], _FAR), min(reach, _FAR)
        if node.op in (Op.ADD, Op.SUB):
            return self._sum(node.op, parts)
        if node.op in (Op.MUL, Op.FLOORDIV):
            return self._product(node.op, parts)
        return None

    def _truth(self, node: Expr, parts: list[tuple[Expr, Number]]) -> Held:
        """A comparison is right where one side is exact and the other is so beyond all that it may be."""
        args = tuple(expr for expr, _ in parts)
        for (_, reach), (other, other_reach) in (parts, parts[::-1]):
            if node.args[0].type is Type.INT and other_reach == INF and self._size(other) < reach:
                return remake(node, args), INF
        return None

    def _sum(self, op: Op, parts: list[tuple[Expr, Number]]) -> Held:
        far = 0 if self._is_farther(parts[0], parts[1]) else 1
        (x, reach), (y, other_reach) = parts[far], parts[1 - far]
        size = self._size(y)
        if other_reach < INF or size > _FAR // 2:
            return None
        held = self._fitting(lambda x: make(op, *((x, y) if far == 0 else (y, x))), x, _FAR)
        return held, min(reach, _FAR) - size

    def _product(self, op: Op, parts: list[tuple[Expr, Number]]) -> Held:
        """``x * n`` is 0 or at least as far out as ``x``; ``x // n`` at least a size(n)-th of that."""
        far = 0 if op is Op.FLOORDIV or self._is_farther(parts[0], parts[1]) else 1
        (x, reach), (n, other_reach) = parts[far], parts[1 - far]
        size = max(self._size(n), 1)
        if other_reach < INF or size > _FAR:
            return None
        limit = _FAR if op is Op.FLOORDIV else _FAR // int(size)
        held = self._fitting(lambda x: make(op, *((x, n) if far == 0 else (n, x))), x, limit)
        reach = min(reach, limit)
        return held, reach // size if op is Op.FLOORDIV else reach

    def _is_farther(self, one: tuple[Expr, Number], other: tuple[Expr, Number]) -> bool:
        return (one[1] < INF, self._size(one[0])) >= (other[1] < INF, self._size(other[0]))

    def _size(self, node: Expr) -> Number:
        """The greatest magnitude."""
        interval = self._values.of(node)
        return max(abs(interval.lo), abs(interval.hi))

    def _fitting(self, build: Callable[[Expr], Expr], x: Expr, limit: int) -> Expr:
        """``build(x)`` within int64: ``x`` held back at ``limit`` above, below, or on both sides."""
        below, above = make(Op.MIN, x, const(limit)), make(Op.MAX, x, const(-limit))
        both = make(Op.MAX, below, const(-limit))
        return next((r for y in (x, below, above) if fits_int64(self._values.of(r := build(y)))), build(both))
