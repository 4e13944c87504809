"""How logits become the weights that meet V, and what the backward needs to know of that.

    softmax, no weight clause    ->  ONLINE: weights over the running maximum, divided by their sum at the end
    weight = weight * gate[h]    ->  ONLINE: the sum counts the weights, the product with V the gated ones
    weight = weight ** 2         ->  ONLINE: the product with V is rescaled and divided twice
    weight = max(weight - t, 0)  ->  TWO PASSES: the sum of a row must be known before its weights can be changed
    sigmoid, relu                ->  AT ONCE: a weight depends on its own score alone

In the backward a softmax has dS = P * (dP * W'(P) - delta) with delta = sum_k P * dP * W'(P) - d_lse. Where W
is homogeneous, P * W'(P) = degree * W(P), so delta is degree * rowsum(dO * O) - d_lse, which costs nothing.
Where it is not, a pass over the keys sums it up. The others have no delta: dS = dP * dW(w(s))/ds.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from attngen.analysis.derivative import gradients
from attngen.analysis.homogeneous import degree_of
from attngen.analysis.interval import INF, interval_of
from attngen.analysis.simplify import simple, simplify
from attngen.ir.nodes import SCORE, WEIGHT, AttentionIR, Expr, Normalize, Op, const, make, substitute

_ZERO = const(0.0)

#: Beyond it the power of a row's sum would leave float32's range: 2**30 keys to the fourth are 2**120.
_HIGHEST_DEGREE = 4


class Forward(Enum):
    """When a weight is final."""

    ONLINE = "online"  # at the end, by a factor of its row
    TWO_PASSES = "two passes"  # once the row's log-sum-exp is known, which a pass of its own finds
    AT_ONCE = "at once"  # as soon as its score is


@dataclass(frozen=True)
class Weights:
    """``changed`` is the weight clause over WEIGHT, the normalised weight; None where there is none.

    ``slope`` is, over WEIGHT, d ``changed`` / d WEIGHT for a softmax, and d ``changed`` / d score for the
    others; None where it is 1. ``degree`` is that of ``changed``, None where delta must be summed up.
    ``zero_where_masked`` says that ``changed`` is 0 where WEIGHT is.
    """

    forward: Forward
    changed: Expr | None
    slope: Expr | None
    degree: int | None
    zero_where_masked: bool = True

    @property
    def is_softmax(self) -> bool:
        return self.forward is not Forward.AT_ONCE

    @property
    def roots(self) -> tuple[Expr, ...]:
        """What is computed for each weight."""
        return tuple(e for e in (self.changed, self.slope) if e is not None)


def weights_of(ir: AttentionIR) -> Weights:
    """Decide how the weights of a variant are made."""
    degree = 1 if ir.weight is None else degree_of(ir.weight)
    if degree is not None and not 1 <= degree <= _HIGHEST_DEGREE:
        degree = None
    forward = Forward.TWO_PASSES if degree is None else Forward.ONLINE
    if not ir.is_softmax:
        forward, degree = Forward.AT_ONCE, None
    vanishes = ir.weight is None or degree_of(ir.weight) not in (None, 0)
    changed = ir.weight
    if changed is not None and vanishes:
        changed = _zero_at_zero(changed, ir)  # what multiplies it may be infinite where nothing is kept
    slope = simplify(_slope(ir))
    return Weights(
        forward,
        changed,
        None if slope is const(1.0) else _zero_at_zero(slope, ir),
        degree,
        vanishes,
    )


def _slope(ir: AttentionIR) -> Expr:
    """By the weight for a softmax, by the score for the others, both over WEIGHT."""
    by_weight = gradients(ir.weight, [WEIGHT])[WEIGHT] if ir.weight is not None else const(1.0)
    return by_weight if ir.is_softmax else simple(Op.MUL, by_weight, normalization_slope(ir.normalize))


def normalization_slope(normalize: Normalize) -> Expr:
    """The derivative of sigmoid or relu by the score, written over its value, WEIGHT."""
    if normalize is Normalize.SIGMOID:
        value = make(Op.SIGMOID, SCORE)
        return substitute(gradients(value, [SCORE])[SCORE], {value: WEIGHT})
    value = make(Op.WHERE, make(Op.LE, SCORE, _ZERO), _ZERO, SCORE)  # a conditional: its derivative at 0 is 0
    return substitute(gradients(value, [SCORE])[SCORE], {SCORE: WEIGHT})


def _zero_at_zero(value: Expr, ir: AttentionIR) -> Expr:
    """``value``, but 0 where WEIGHT is, unless it cannot be infinite or NaN there anyway."""
    at_zero = substitute(value, {WEIGHT: _ZERO})
    found = interval_of(at_zero, ir=ir)[at_zero]
    if not found.may_nan and -INF < found.lo and found.hi < INF:
        return value
    return simple(Op.WHERE, simple(Op.EQ, WEIGHT, _ZERO), _ZERO, value)
