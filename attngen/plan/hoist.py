"""What leaves the inner loop: the largest parts of an expression that change less often than every score.

score - slopes[h] * abs(dist), qx == kx
->  once a program: slopes[h];  once a row: qx = q % 64;  once a column: kx = k % 64
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.analysis.rates import Rate, rates
from attngen.analysis.walk import fresh
from attngen.ir.nodes import Expr, Op, postorder

_LEAVES = {Op.CONST, Op.WORD, Op.SIZE, Op.PARAM, Op.SCORE, Op.WEIGHT}


@dataclass(frozen=True)
class Hoisted:
    """Parts computed outside the tile's own lines, operands before users."""

    program: tuple[Expr, ...] = ()
    row: tuple[Expr, ...] = ()
    column: tuple[Expr, ...] = ()


def hoist(*roots: Expr) -> Hoisted:
    """The largest non-trivial parts below ``roots`` that change less often than the root they stand in.

    A root itself is never hoisted; what a hoisted row or column holds that is the same for the whole program
    is hoisted further.
    """
    known = rates(*roots)
    parts: dict[Rate, dict[Expr, None]] = {Rate.PROGRAM: {}, Rate.ROW: {}, Rate.COLUMN: {}}

    seen: dict[Rate, set[Expr]] = {rate: set() for rate in Rate}  # walked from a root of that rate

    def cut(root: Expr) -> None:
        new = fresh(root, seen[known[root]])
        seen[known[root]].update(new)
        for node in new:
            if known[node] is known[root] and node.op is not Op.DOT:  # a product's tiles are not hoisted here
                for arg in node.args:
                    if known[arg] is not known[root] and arg.op not in _LEAVES:
                        parts[max(known[arg], Rate.PROGRAM)].setdefault(arg)

    for root in roots:
        cut(root)
    for rate in (Rate.ROW, Rate.COLUMN):
        for part in tuple(parts[rate]):
            cut(part)
    program, row, column = (_in_order(tuple(parts[r])) for r in (Rate.PROGRAM, Rate.ROW, Rate.COLUMN))
    return Hoisted(program, row, column)


def _in_order(parts: tuple[Expr, ...]) -> tuple[Expr, ...]:
    """Operands before users, so that one part may be written with the others."""
    wanted = set(parts)
    return tuple(node for node in postorder(*parts) if node in wanted)
