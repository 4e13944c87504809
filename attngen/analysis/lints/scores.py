"""Scores that leave float32's range, or have no value, at places that the mask keeps.

score = exp(score)           ->  unbounded-exp: overflows from 89 on
score = score * score        ->  unbounded-product: grows as the square of q.k
score = score / dist         ->  zero-divisor: 'dist' is 0 at q = 0, k = 0 (q_len = 1, k_len = 1)
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.interval import INF, Interval, excludes_zero, interval_of
from attngen.analysis.lints.example import Partial, places, with_params
from attngen.analysis.lints.finding import Lint, quoted
from attngen.analysis.simplify import simplify
from attngen.analysis.walk import fresh
from attngen.ir.nodes import AttentionIR, Expr, Op, postorder

_EXP_OVERFLOWS = 88.72  # float32
_MOST_NODES = 200  # of a spec whose divisors are computed place by place


def unbounded_exp(ir: AttentionIR) -> Iterator[Lint]:
    """score = exp(score): float32 overflows to inf from 89 on."""
    for span_key, new, known, reads_score in _lines(ir):
        exps = (node for node in new if node.op is Op.EXP and reads_score[node])
        if any(known[node.args[0]].hi > _EXP_OVERFLOWS for node in exps):
            yield Lint(
                "unbounded-exp",
                "exp of an unbounded score overflows from 89 on; bound it, as in exp(min(score, 80.0))",
                ir.spans.get(span_key),
            )


def unbounded_product(ir: AttentionIR) -> Iterator[Lint]:
    """score = score * score: it grows as the square of q.k, and so do the gaps between scores."""
    for span_key, new, known, reads_score in _lines(ir):
        products = (node for node in new if node.op is Op.MUL and reads_score[node])
        if any(all(reads_score[a] and _is_unbounded(known[a]) for a in node.args) for node in products):
            yield Lint(
                "unbounded-product",
                "the score is multiplied by itself, unbounded: a product q.k of 100 becomes 10000, beside "
                "which no other key counts; bound it first, as in softcap(score, 10.0)",
                ir.spans.get(span_key),
            )


def zero_divisors(ir: AttentionIR) -> Iterator[Lint]:
    """score = score / dist: the query's own key has no score."""
    if len(postorder(ir.final_score, ir.mask)) > _MOST_NODES:
        return
    mask = Partial(simplify(ir.mask), ir)
    for span_key, new, known, _ in _lines(ir):
        for node in new:
            if node.op not in (Op.DIV, Op.RSQRT) or excludes_zero(known[node.args[-1]]):
                continue
            where = _zero(node.args[-1], mask, ir)
            if where:
                text = quoted(node.args[-1], ir, "what is divided by")
                message = f"{text} is 0 {where}: a division by it is infinite or no number"
                yield Lint("zero-divisor", message, ir.spans.get(span_key))
                break


def _zero(divisor: Expr, mask: Partial, ir: AttentionIR) -> str:
    """A place that the mask may keep and where the divisor is 0, or ""."""
    value = Partial(divisor, ir)
    for place in places(divisor):
        if value.at(place) == 0 and mask.at(place) is not False:
            return f"at q = {place.q}, k = {place.k} ({place.sizes}{with_params(divisor, ir)})"
        if value.at(place, product=0.0) == 0 and mask.at(place) is not False:
            return "where the product of q and k is"
    return ""


def _is_unbounded(known: Interval) -> bool:
    return known.lo == -INF or known.hi == INF


def _lines(
    ir: AttentionIR,
) -> Iterator[tuple[str, list[Expr], dict[Expr, Interval], dict[Expr, bool]]]:
    """Of each line of the score: its key in ``ir.spans``, and the nodes that it adds to the lines above.

    Then, of all nodes, what is known of them, and of those so far whether they read the score.
    """
    known = interval_of(*ir.score, ir=ir)
    reads_score: dict[Expr, bool] = {}
    for number, root in enumerate(ir.score):
        new = fresh(root, reads_score)
        for node in new:
            reads_score[node] = node.op in (Op.SCORE, Op.DOT) or any(reads_score[a] for a in node.args)
        yield f"score[{number}]", new, known, reads_score
