"""The scores where the mask keeps them, which is all that is read of them.

score - slopes[h] * abs(dist), causal   ->   score - slopes[h] * dist
"""

from __future__ import annotations

from dataclasses import replace

from attngen.ir.nodes import Expr, Op, conjuncts, make, postorder, remake
from attngen.plan.base2 import Logits

# On the way from a score to a distance: what stays finite whatever the distance is, and is no index.
_SMOOTH = {Op.ADD, Op.SUB, Op.MUL, Op.NEG}


def where_kept(logits: Logits, keep: Expr) -> Logits:
    """The same logits wherever the mask ``keep`` holds; elsewhere other ones, finite where they were."""
    ordered = {node.args for node in conjuncts(keep) if node.op in (Op.LT, Op.LE)}
    return replace(logits, tile=_without_abs(logits.tile, ordered)) if ordered else logits


def _without_abs(root: Expr, ordered: set[tuple[Expr, ...]]) -> Expr:
    """``root`` without the abs of a difference x - y where ``ordered`` holds (y, x): it is not negative."""
    reached, waiting = {root}, [root]
    while waiting:
        node = waiting.pop()
        if node.op in _SMOOTH:
            new = set(node.args) - reached
            reached |= new
            waiting += new
    known: dict[Expr, Expr] = {}
    for node in postorder(root):
        if node not in reached:
            known[node] = node
        elif node.op is Op.TO_FLOAT:
            known[node] = _plain(node, ordered)
        else:
            args = tuple(known[a] for a in node.args) if node.op in _SMOOTH else node.args
            known[node] = remake(node, args)
    return known[root]


def _plain(node: Expr, ordered: set[tuple[Expr, ...]]) -> Expr:
    """``float(abs(x - y))`` as ``float(x - y)``, where that is the same."""
    size = node.args[0]
    if size.op is not Op.ABS or size.args[0].op is not Op.SUB:
        return node
    x, y = size.args[0].args
    if (y, x) in ordered:
        return make(Op.TO_FLOAT, size.args[0])
    return make(Op.TO_FLOAT, make(Op.SUB, y, x)) if (x, y) in ordered else node
