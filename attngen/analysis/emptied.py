"""What a call may fill so that a score becomes -inf: why a row may be empty although the mask keeps a key.

    score - slopes[h] * abs(start[b] - k)   ->   slopes      start is an int, which is never -inf
    score + t[h, ids[k]] * float(dist < c)  ->   t           ids chooses an element, c a branch

Each float operand is tried by itself: it may be anything, while the others are numbers near 1.
"""

from __future__ import annotations

from attngen.analysis.interval import ANY_FLOAT, Interval, Values
from attngen.analysis.nonempty import LARGEST_PRODUCT, is_above
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Op, postorder
from attngen.ir.types import Type

_NEAR_ONE = Interval(0.5, 1.0)
_MOST_NODES = 500  # of a score that is looked at operand by operand


def bringers(ir: AttentionIR) -> tuple[str, ...]:
    """The float inputs and params that may each make a score -inf, in the order in which they are read.

    Empty where none does by itself: a constant of the score does, or no proof is found.
    """
    operands: dict[str, set[Expr]] = {}
    for node in _floats(ir.scale, ir.final_score):
        if node.op in (Op.LOAD, Op.PARAM):
            operands.setdefault(str(node.value), set()).add(node)
        elif node.op is Op.DOT:
            for row in node.args:
                operands.setdefault(str(row.value), set()).add(node)
    if len(postorder(ir.final_score)) > _MOST_NODES:
        return tuple(operands)
    if _may_reach(ir, operands, None):
        return ()
    return tuple(name for name in operands if _may_reach(ir, operands, name))


def _may_reach(ir: AttentionIR, operands: dict[str, set[Expr]], name: str | None) -> bool:
    """Whether a score may be -inf where ``name`` alone of the operands is anything."""
    free = operands[name] if name is not None else set()
    given = dict.fromkeys((node for nodes in operands.values() for node in nodes), _NEAR_ONE)
    given |= dict.fromkeys(free, ANY_FLOAT)
    dtypes = {i.name: i.dtype for i in ir.inputs}
    scale = Values(dtypes, given).of(ir.scale)
    most = max(abs(scale.lo), abs(scale.hi)) * LARGEST_PRODUCT
    score = Values(dtypes, {**given, SCORE: Interval(-most, most, scale.may_nan)}).of(ir.final_score)
    return not is_above(ir.final_score, score)


def _floats(*roots: Expr) -> list[Expr]:
    """The floats that ``roots`` are computed with: not those under indices, conditions and ``int()``."""
    reached = set(roots)
    order = postorder(*roots)
    for node in reversed(order):
        if node in reached and node.op is not Op.LOAD:
            reached.update(arg for arg in node.args if arg.type is Type.FLOAT)
    return [node for node in order if node in reached]
