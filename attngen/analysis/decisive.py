"""Floats that decide something: the operations that a kernel must round one by one, as the language does.

    mask = 0.3 * dist + x < y / 3.0    ->    0.3 * dist (alone, not fused with the sum) and y / 3.0

Under ``int()``, ``floor``, a comparison or an index a last bit moves a bucket or a key; in a score it is lost
among the others. A GPU divides and takes roots approximately unless told otherwise, and its compiler fuses a
product with the sum that it feeds, which skips a rounding.
"""

from __future__ import annotations

from collections.abc import Iterable

from attngen.ir.nodes import Expr, Op
from attngen.ir.types import Type

_DECIDES = {Op.LT, Op.LE, Op.EQ, Op.NE, Op.FLOOR, Op.TO_INT}
_APPROXIMATE = {Op.DIV, Op.SQRT, Op.RSQRT}
_FUSING = {Op.ADD, Op.SUB, Op.NEG}  # a negated product is fused too


def rounded_alone(nodes: Iterable[Expr]) -> frozenset[Expr]:
    """The DIV, SQRT, RSQRT and MUL nodes among ``nodes`` (operands before users) to be rounded alone.

    A product is among them where something fuses with it.
    """
    decisive: set[Expr] = set()
    found: set[Expr] = set()
    for node in reversed(list(nodes)):
        if node.op not in _DECIDES and node not in decisive:
            continue
        if node.op in _APPROXIMATE:
            found.add(node)
        floats = [a for a in node.args if a.type is Type.FLOAT]
        decisive.update(floats)
        if node.op in _FUSING:
            found.update(a for a in floats if a.op is Op.MUL)
    return frozenset(found)
