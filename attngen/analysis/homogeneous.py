"""What becomes of an expression when the weight in it is scaled: W(c * w) = c**degree * W(w), for c > 0.

    weight * gate[h]          ->  1        weight ** 2 * exp(-0.1 * dist)   ->  2
    max(weight - 0.01, 0.0)   ->  None     weight + 0.5                     ->  None

A weight whose row is not yet summed up is the final one times a factor. Where there is a degree that factor
can be taken out later, and by Euler's theorem w * W'(w) = degree * W(w); where there is none, the weight must
be known before W is taken.
"""

from __future__ import annotations

from attngen.ir.nodes import WEIGHT, Expr, Op, postorder

_ANY = "any"  # of the constant 0, which is itself whatever it is scaled by
Degree = int | str | None

#: Of terms with one degree these have that degree; the factor is positive, so it keeps their order.
_SUMS = {Op.ADD, Op.SUB, Op.NEG, Op.ABS, Op.MIN, Op.MAX, Op.CLAMP, Op.WHERE}


def degree_of(root: Expr) -> int | None:
    """The degree in WEIGHT of a FLOAT expression; None where it has none, or is always 0."""
    known: dict[Expr, Degree] = {}
    for node in postorder(root):
        known[node] = _degree(node, known)
    found = known[root]
    return found if isinstance(found, int) else None


def _degree(node: Expr, known: dict[Expr, Degree]) -> Degree:
    if node is WEIGHT:
        return 1
    if node.op is Op.CONST and node.value == 0:
        return _ANY
    degrees = [known[a] for a in node.args]
    if all(d == 0 or d == _ANY for d in degrees):
        return 0
    if None in degrees:
        return None
    if node.op is Op.MUL:
        first, second = degrees
        return first + second if isinstance(first, int) and isinstance(second, int) else _ANY
    if node.op is Op.DIV:
        first, second = degrees
        return first if second == 0 else None
    if node.op not in _SUMS:
        return None
    if node.op is Op.WHERE:
        condition, *degrees = degrees
        if condition != 0 and condition != _ANY:
            return None
    found = set(degrees) - {_ANY}
    return found.pop() if len(found) == 1 else None
