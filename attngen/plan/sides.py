"""The mask as the kernels compute it: of a comparison, one side is the row's and one the column's.

pos - k >= 0      ->   k <= pos
pos - k < 4096    ->   pos - 4096 < k
k - pos <= 8      ->   k <= pos + 8

A difference is an operation for every score, where a row's own is one a row. LLVM, too, makes long vectors of
such differences and of what they are compared with, and then unpacks the results bit by bit.
"""

from __future__ import annotations

from attngen.analysis.interval import Values, fits_int32
from attngen.analysis.rates import Rate, rate_of
from attngen.analysis.simplify import simple
from attngen.ir.nodes import AttentionIR, Expr, Op, conjuncts, const, make, postorder, rewrite, word
from attngen.ir.types import Type

_K, _K_LEN = word("k"), word("k_len")


def sides_apart(ir: AttentionIR) -> Expr:
    """The mask with the sides of its comparisons apart, wherever no number of it may pass int32."""
    values = Values({i.name: i.dtype for i in ir.inputs})

    def moved(node: Expr) -> Expr:
        if node.op not in (Op.LT, Op.LE) or node.args[0].type is not Type.INT:
            return node
        new = _moved(node)
        fits = new is not None and all(fits_int32(values.of(x)) for x in _ints(node, new))
        return new if new is not None and fits else node

    return rewrite(ir.mask, moved)


def _ints(*roots: Expr) -> list[Expr]:
    return [x for x in postorder(*roots) if x.type is Type.INT]


def _moved(node: Expr) -> Expr | None:
    """A comparison of a row's value less a column's, or the other way round, with what both share."""
    left, right = node.args
    if _is_gap(left) and rate_of(right) <= Rate.PROGRAM:
        x, y = left.args
        if rate_of(x) is Rate.ROW:
            return make(node.op, simple(Op.SUB, x, right), y)
        return make(node.op, x, simple(Op.ADD, y, right))
    if _is_gap(right) and rate_of(left) <= Rate.PROGRAM:
        x, y = right.args
        if rate_of(x) is Rate.ROW:
            return make(node.op, y, simple(Op.SUB, x, left))
        return make(node.op, simple(Op.ADD, y, left), x)
    return None


def _is_gap(node: Expr) -> bool:
    return node.op is Op.SUB and {rate_of(a) for a in node.args} == {Rate.ROW, Rate.COLUMN}


def keeps_keys_alone(ir: AttentionIR, keep: Expr) -> bool:
    """Whether a row below q_len keeps no key from k_len on, by the mask ``keep`` alone: ``k <= pos`` does."""
    values = Values({i.name: i.dtype for i in ir.inputs})

    def bounds(node: Expr) -> bool:
        if node.op not in (Op.LT, Op.LE) or node.args[0] is not _K:
            return False
        end = node.args[1] if node.op is Op.LE else make(Op.SUB, node.args[1], const(1))
        return values.of(make(Op.SUB, end, _K_LEN)).hi < 0

    return any(map(bounds, conjuncts(keep)))
