"""Scores that leave float32's range, have no value at places that the mask keeps, or do the mask's work.

score = exp(score)           ->  unbounded-exp: overflows from 89 on
score = score * score        ->  unbounded-product: grows as the square of q.k
score = score / dist         ->  zero-divisor: 'dist' is 0 at q = 0, k = 0 (q_len = 1, k_len = 1)
score = where(causal, score, -inf)  ->  masking-score: no tile is skipped
scale = 0.0                  ->  zero-scale: no score depends on q and k
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.interval import INF, Interval, excludes_zero, interval_of
from attngen.analysis.lints.example import Partial, places, with_params
from attngen.analysis.lints.finding import Lint, quoted
from attngen.analysis.simplify import simplify
from attngen.analysis.walk import fresh
from attngen.ir.build import prelude
from attngen.ir.nodes import TRUE, AttentionIR, Expr, Op, conjuncts, const, leaves, make, postorder
from attngen.ir.scope import Value

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


def masking_scores(ir: AttentionIR) -> Iterator[Lint]:
    """score = where(causal, score, -inf): masked, but every tile is visited."""
    own = conjuncts(simplify(ir.mask))
    for span_key, new, _, _ in _lines(ir):
        root = ir.score[int(span_key[len("score[") : -1])]
        kept = [simplify(c) for c in _kept(root, frozenset(new)) if not _reads_products(c)]
        kept = [c for c in kept if c not in own]
        if kept:
            parts = ["..."] * (ir.mask is not TRUE) + [_as_part(c, ir) for c in dict.fromkeys(kept)]
            message = "a score of -inf is masked, and yet its tile is computed: write mask = "
            yield Lint("masking-score", message + " and ".join(parts), ir.spans.get(span_key))


def _kept(root: Expr, new: frozenset[Expr]) -> Iterator[Expr]:
    """The conditions without which a sum of conditionals is -inf, of those that the line adds."""
    stack = [root]
    while stack:
        node = stack.pop()
        if node in new and node.op is Op.ADD:
            stack += reversed(node.args)
        elif node in new and node.op is Op.WHERE:
            condition, chosen, other = node.args
            if _is_masked(other):
                yield condition
                stack.append(chosen)
            elif _is_masked(chosen):
                yield make(Op.NOT, condition)
                stack.append(other)


def _as_part(condition: Expr, ir: AttentionIR) -> str:
    causal = prelude()["causal"]
    if isinstance(causal, Value) and causal.expr is not None and simplify(causal.expr) is condition:
        return "causal"
    text = quoted(condition, ir, "")[1:-1]
    return f"({text})" if condition.op is Op.OR else text or "..."


def _reads_products(condition: Expr) -> bool:
    """Whether no mask can say it."""
    return any(node.op in (Op.SCORE, Op.DOT) for node in postorder(condition))


def _is_masked(node: Expr) -> bool:
    return simplify(node) is const(-INF)


def zero_scale(ir: AttentionIR) -> Iterator[Lint]:
    """scale = 0.0: whatever q and k are, their product counts for nothing."""
    if simplify(ir.scale) is const(0.0) and any(leaves(ir.final_score, op=Op.SCORE)):
        message = "a scale of 0 makes every product of q and k 0: the scores do not depend on them"
        yield Lint("zero-scale", message, ir.spans.get("scale"))


def _zero(divisor: Expr, mask: Partial, ir: AttentionIR) -> str:
    """A place that the mask may keep and where the divisor is 0, or ""."""
    if divisor.op is Op.CONST:
        return "everywhere"
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
