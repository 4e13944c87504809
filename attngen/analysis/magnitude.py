"""How large a score can be, as an expression that is the same for a whole program.

    score = softcap(score, cap)               ->  abs(score) <= abs(cap)
    ... and then score = score + 2.0          ->  abs(score) <= abs(cap) + 2.0

Rounding aside. None where there is no bound: the product of q and k has none.
"""

from __future__ import annotations

from attngen.analysis.rates import Rate, extend
from attngen.analysis.simplify import simple
from attngen.analysis.walk import fresh
from attngen.ir.nodes import Expr, Op, const
from attngen.ir.types import Type

_ONE = const(1.0)
_WITHIN_ONE = {Op.TANH, Op.SIGMOID, Op.SIN, Op.COS}


def magnitude(root: Expr) -> Expr | None:
    """A FLOAT that ``abs(root)`` does not pass, made of consts, params, sizes and what b and h index."""
    rates: dict[Expr, Rate] = {}
    extend(rates, root)
    known: dict[Expr, Expr | None] = {}
    for node in fresh(root, known):
        known[node] = _magnitude(node, rates, known) if node.type is Type.FLOAT else None
    return known[root]


def _magnitude(node: Expr, rates: dict[Expr, Rate], known: dict[Expr, Expr | None]) -> Expr | None:
    if rates[node] <= Rate.PROGRAM:
        return simple(Op.ABS, node) if node.op is not Op.CONST else const(abs(float(node.value or 0)))
    if node.op in _WITHIN_ONE:
        return _ONE
    args = [known[a] for a in node.args if a.type is Type.FLOAT]
    if node.op is Op.CLAMP:
        args = args[1:]  # between its ends, whatever it clamps
    if node.op in (Op.NEG, Op.ABS):
        return args[0]
    joins = {Op.ADD: Op.ADD, Op.SUB: Op.ADD, Op.MUL: Op.MUL}
    joins |= dict.fromkeys((Op.MIN, Op.MAX, Op.WHERE, Op.CLAMP), Op.MAX)
    if node.op not in joins or len(args) != 2 or args[0] is None or args[1] is None:
        return None
    first, second = args[0], args[1]
    return first if first is second and joins[node.op] is Op.MAX else simple(joins[node.op], first, second)
