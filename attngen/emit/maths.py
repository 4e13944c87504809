"""The variant's maths as jitted functions, each under the clauses that it computes.

score = score - slopes[h] * abs(dist)   ->   def logits(dot, pos, k, scale_log2, slopes_h_log2): ...
mask = causal                           ->   def keeps(pos, k): ...
"""

from __future__ import annotations

from dataclasses import replace

from attngen.analysis.rates import Rate, rate_of
from attngen.emit.prose import comment
from attngen.emit.scope import Scope
from attngen.emit.view import Function, Gradient, Maths
from attngen.ir.nodes import Expr, Normalize
from attngen.ir.printer import print_clauses
from attngen.plan.base2 import ONE, SCALE
from attngen.plan.hoist import Hoisted


def make_maths(scope: Scope) -> Maths:
    """The functions of score and mask, and how the kernels call them."""
    plan, ir = scope.plan, scope.ir
    logits, both, keeps = _logits(scope), _logits_and_derivative(scope), _keeps(scope)
    kept = [keeps.call] if keeps else []
    scale = _scale_text(scope)
    return Maths(
        functions=tuple(f for f in (logits, both, keeps) if f is not None),
        logits=logits,
        gradient=Gradient("logit, derivative", both.call) if both else Gradient("logit", logits.call),
        gain=_gain(scope),
        keep_keys=" & ".join(["(column < k_len)", *kept]),
        keep_pairs=" & ".join(["(row < q_len)", "(column < k_len)", *kept]),
        keep_whole="".join(kept),
        times_factor="" if plan.logits.factor is ONE else f" * {scope.uniform(plan.logits.factor)}",
        scale_by_head=scope.scale_by_head,
        scale_after="" if ir.scale is ONE else scale,
        scale_after_dk="" if ir.scale is ONE or scope.scale_by_head else scale,
    )


def make_dense_maths(scope: Scope, maths: Maths, load: Expr) -> Maths:
    """The same functions where ``load`` is a tile that the kernel has brought, under names of their own."""
    logits, both = _logits(scope, "tile_", (load,)), _logits_and_derivative(scope, "tile_", (load,))
    others = (f for f in maths.functions if f.call not in (maths.logits.call, maths.gradient.call))
    return replace(
        maths,
        functions=(logits, *(() if both is None else (both,)), *others),
        logits=logits,
        gradient=replace(maths.gradient, call=(both or logits).call),
    )


def function_of(
    scope: Scope,
    name: str,
    doc: str,
    kind: str,
    roots: tuple[Expr, ...],
    parts: Hoisted,
    tiles: tuple[Expr, ...] = (),
) -> Function:
    """A jitted function of ``roots``, under the clauses of a kind; it is given what is in ``parts`` and
    ``tiles``."""
    given = [*scope.program_values, *parts.row, *parts.column, *tiles]
    if len(roots) == 1:  # of several, one may be what the others are made of, and given: the argument
        given = [g for g in given if g not in roots]
    block = scope.kernel.results(roots, given)
    clauses = [text for key, text in print_clauses(scope.ir).items() if key.split("[")[0] == kind]
    lines = [line for clause in clauses for line in clause.splitlines()]
    name = scope.names.function(name)
    uses = scope.parameters(block.uses)
    return Function(name, doc, (*comment(lines, indent=4), *block.lines), ", ".join(block.results), uses)


def _logits(scope: Scope, prefix: str = "", tiles: tuple[Expr, ...] = ()) -> Function:
    logits = scope.plan.logits
    what = "Scores of a tile" if scope.ir.bias is None else "Scores of a tile with the sigmoid's bias"
    in_base_2 = scope.ir.normalize is not Normalize.RELU
    doc = f"{what} in base 2, that is times log2(e)." if in_base_2 else f"{what}."
    if logits.factor is not ONE:
        doc = f"{what}{' in base 2' if in_base_2 else ''}, but for the factor {scope.uniform(logits.factor)}."
    parts = scope.plan.score_parts
    function = function_of(scope, f"{prefix}logits", doc, "score", (logits.tile,), parts, tiles)
    if rate_of(logits.tile) is Rate.TILE:
        return function
    spread = f"tl.where(dot == dot, {function.result}, {function.result})"  # a number or a row, over the tile
    return replace(function, result=spread, uses=scope.parameters(("dot", *function.uses)))


def _logits_and_derivative(scope: Scope, prefix: str = "", tiles: tuple[Expr, ...] = ()) -> Function | None:
    """For scores whose derivative varies from one to the next."""
    if scope.plan.derivative_is_uniform:
        return None
    logits = scope.plan.logits
    doc = "The same, and the derivative of the score by scale * dot."
    roots = (logits.tile, logits.derivative)
    name, parts = f"{prefix}logits_and_derivative", scope.plan.score_parts
    return function_of(scope, name, doc, "score", roots, parts, tiles)


def _keeps(scope: Scope) -> Function | None:
    if not scope.plan.is_masked:
        return None
    doc = "Which scores of a tile count."
    return function_of(scope, "keeps", doc, "mask", (scope.plan.keep,), scope.plan.mask_parts)


def _gain(scope: Scope) -> str:
    """P times the score's derivative, or "" where that is 1. Where P is 0 the derivative may be infinite.

    Where the weight depends on its own score alone, its slope stands for P.
    """
    plan = scope.plan
    weight = "weights" if plan.weights.is_softmax else "slope"
    if plan.logits.is_linear:
        return ""
    if plan.derivative_is_uniform:
        return f"{weight} * {scope.uniform(plan.logits.derivative)}"
    return f"tl.where(weights > 0.0, {weight} * derivative, 0.0)"


def _scale_text(scope: Scope) -> str:
    return repr(scope.ir.scale.value) if scope.plan.scale_is_const else str(SCALE.value)
