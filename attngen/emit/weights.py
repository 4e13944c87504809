"""How the kernels turn logits into weights and back: each step under the clause that asks for it.

normalize = sigmoid(-log(k_len))   ->   def normalized(logit, ...): return reciprocal(1.0 + tl.exp2(-logit))
weight = weight * gate[h]          ->   def reweighted(weights, gate_h): return weights * gate_h
"""

from __future__ import annotations

from attngen.emit.maths import function_of
from attngen.emit.prose import comment
from attngen.emit.scope import Scope
from attngen.emit.view import Function, Maths, WeightsView
from attngen.ir.nodes import Expr, Normalize
from attngen.ir.printer import print_clauses
from attngen.plan.weights import Forward


def make_weights(scope: Scope, maths: Maths) -> WeightsView:
    """The functions of normalisation and weight clause, and how the kernels call them."""
    plan = scope.plan.weights
    doc = "The weights that meet V, of weights as the softmax has them."
    if plan.forward is Forward.ONLINE and plan.changed is not None:
        power = "" if plan.degree == 1 else f" to the power {plan.degree}"
        doc = f"The weights that meet V; a factor of a row's weights comes through it as a factor{power}."
    elif not plan.is_softmax:
        doc = "The weights that meet V, of normalised ones."
    normalized = _normalized(scope)
    reweighted = _function(scope, "reweighted", doc, plan.changed)
    slope = _function(scope, "weight_slope", _slope_doc(scope), plan.slope)
    gain = maths.gain
    inside = ["d_weights * slope" if slope else "d_weights"]
    if plan.is_softmax:
        d_final = f"weights * ({inside[0]} - delta)"
        d_score = f"{'gain' if gain else 'weights'} * ({inside[0]} - delta)"
    else:
        d_final = inside[0]
        d_score = "d_weights * gain" if gain else d_final
    return WeightsView(
        weight_functions=tuple(f for f in (normalized, reweighted, slope) if f is not None),
        has_lse=plan.is_softmax,
        two_passes=plan.forward is Forward.TWO_PASSES,
        degree=plan.degree or 1,
        normalized=_normalized_call(normalized, maths),
        reweighted=_guarded(reweighted, plan.zero_where_masked),
        weight_slope=slope.call if slope else "",
        d_final=d_final,
        d_score=d_score,
    )


def _function(scope: Scope, name: str, doc: str, root: Expr | None) -> Function | None:
    if root is None:
        return None
    return function_of(scope, name, doc, "weight", (root,), scope.plan.score_parts)


def _slope_doc(scope: Scope) -> str:
    if scope.plan.weights.is_softmax:
        return "The derivative of that by the softmax's weight."
    return "The derivative of the weight that meets V by its score."


def _normalized(scope: Scope) -> Function | None:
    """Sigmoid or relu of a tile of logits; the softmax is the kernels' own."""
    ir = scope.ir
    if ir.is_softmax:
        return None
    lines = comment(print_clauses(ir)["normalize"].splitlines(), indent=4)
    doc, result = "The relu of each score.", "tl.where(logit <= 0.0, 0.0, logit)"
    uses: tuple[str, ...] = ("logit",)
    if ir.normalize is Normalize.SIGMOID:
        doc = "The sigmoid of each score, which comes with the bias, and in base 2."
        result = "reciprocal(1.0 + tl.exp2(-logit), FAST_RECIPROCAL)"
        uses = ("logit", "FAST_RECIPROCAL")
    return Function(scope.names.function("normalized"), doc, lines, result, uses)


def _normalized_call(normalized: Function | None, maths: Maths) -> str:
    if normalized is None:
        return ""
    return f"{normalized.name}({', '.join([f'logit{maths.times_factor}', *normalized.uses[1:]])})"


def _guarded(reweighted: Function | None, zero_where_masked: bool) -> str:
    """The call. What is masked has no weight, whatever the clause makes of a weight of 0."""
    if reweighted is None:
        return ""
    if zero_where_masked:
        return reweighted.call
    return f'tl.where(logit == float("-inf"), 0.0, {reweighted.call})'
