"""Tables that are one element too short, or that no score reads inside: the nearest element stands in.

mask = 0 <= dist <= 32 ... table[h, dist]  ->  clamped-index: its 32 elements are 0 to 31, and dist runs to 32
mask = causal ... table[h, dist + 40]      ->  clamped-index: dist + 40 is never one of 0 to 31

That distances far beyond a table read its last element is a way to write a bias, and not blamed.
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.lints.example import Partial, Place, places, with_params
from attngen.analysis.lints.finding import Lint, clauses, index_span, quoted
from attngen.analysis.lints.masks import never_holds
from attngen.analysis.simplify import simplify
from attngen.ir.nodes import AttentionIR, Expr, Op, const, make, mentions, postorder

_MOST_NODES = 200  # of a mask and an index that are computed place by place
_MOST_INDICES = 8


def clamped_index(ir: AttentionIR) -> Iterator[Lint]:
    """table[h, dist] of 32 elements under mask = 0 <= dist <= 32: one past the end; or none inside."""
    inputs = {one.name: one for one in ir.inputs}
    mask = simplify(ir.mask)
    seen: set[Expr] = set()
    looked_at = 0
    for clause, root in clauses(ir):
        for node in _always_read(root):
            if node in seen:
                continue
            seen.add(node)
            for axis, (index, dim) in enumerate(zip(node.args, inputs[str(node.value)].dims, strict=True)):
                if not isinstance(dim, int) or dim == 1 or looked_at == _MOST_INDICES:
                    continue
                if len(postorder(mask, index)) > _MOST_NODES or not _may_leave(index, dim, ir):
                    continue
                looked_at += 1
                problem = _problem(mask, index, dim, ir)
                if problem:
                    text = quoted(index, ir, "an expression")
                    message = f"dimension {axis} of input '{node.value}' is indexed by {text}, {problem}"
                    span = index_span(ir, node, axis, clause)
                    yield Lint("clamped-index", message, span)


def _always_read(root: Expr) -> Iterator[Expr]:
    """The elements that no conditional and no alternative may leave unused."""
    stack, seen = [root], set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        if node.op is Op.LOAD:
            yield node
        if node.op is Op.WHERE:
            stack.append(node.args[0])
        elif node.op is not Op.OR:
            stack += reversed(node.args)


def _may_leave(index: Expr, dim: int, ir: AttentionIR) -> bool:
    """Whether it is not plain that the index stays inside."""
    inside = _both(make(Op.LE, const(0), index), make(Op.LE, index, const(dim - 1)))
    return not never_holds(make(Op.NOT, inside), ir)


def _problem(mask: Expr, index: Expr, dim: int, ir: AttentionIR) -> str | None:
    last = const(dim - 1)
    below, above = make(Op.LT, index, const(0)), make(Op.LT, last, index)
    inside = make(Op.NOT, make(Op.OR, below, above))
    if never_holds(_both(mask, inside), ir):
        place = _place(mask, make(Op.OR, below, above), ir)
        if place:
            value = Partial(index, ir).at(place)
            end = dim - 1 if isinstance(value, int) and value > 0 else 0
            return (
                f"never one of its {dim} elements (0 to {dim - 1}): it is {value} {_at(place, index, ir)}, "
                f"which reads element {end}"
            )
    for beyond, far, end, nearest in (
        (above, make(Op.LT, const(dim), index), dim, dim - 1),
        (below, make(Op.LT, index, const(-1)), -1, 0),
    ):
        if never_holds(_both(mask, far), ir):
            place = _place(mask, beyond, ir)
            if place:
                side = "beyond" if end > 0 else "before"
                return (
                    f"which is {end} {_at(place, index, ir)}, one {side} its {dim} elements "
                    f"(0 to {dim - 1}): element {nearest} is read there"
                )
    return None


def _both(first: Expr, second: Expr) -> Expr:
    return make(Op.AND, first, second)


def _place(mask: Expr, condition: Expr, ir: AttentionIR) -> Place | None:
    """A place that the mask may keep and where the condition holds."""
    kept, holds = Partial(mask, ir), Partial(condition, ir)
    found = (p for p in places(mask, condition) if holds.at(p) is True and kept.at(p) is not False)
    return next(found, None)


def _at(place: Place, index: Expr, ir: AttentionIR) -> str:
    head = f"h = {place.h}, " if mentions(index, "h") else ""
    return f"at {head}q = {place.q}, k = {place.k} ({place.sizes}{with_params(index, ir)})"
