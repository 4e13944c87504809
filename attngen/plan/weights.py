"""How logits become the weights that meet V, and what the backward needs to know of that.

    softmax, no weight clause    ->  ONLINE: weights over the running maximum, divided by their sum at the end
    weight = weight * gate[h]    ->  ONLINE: the sum counts the weights, the product with V the gated ones
    weight = weight ** 2         ->  ONLINE: the product with V is rescaled and divided twice
    weight = max(weight - t, 0)  ->  TWO PASSES: the sum of a row must be known before its weights are changed
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
from attngen.analysis.interval import INF, Interval, interval_of
from attngen.analysis.simplify import simple, simplify
from attngen.ir.nodes import (
    SCORE,
    WEIGHT,
    AttentionIR,
    Expr,
    Normalize,
    Op,
    const,
    leaves,
    make,
    substitute,
    word,
)

_ZERO, _ONE = const(0.0), const(1.0)

#: What the table differentiates. A conditional's derivative is the chosen branch's: relu's is 0 at 0.
_NORMALIZED = {
    Normalize.SIGMOID: make(Op.SIGMOID, SCORE),
    Normalize.RELU: make(Op.WHERE, make(Op.LE, SCORE, _ZERO), _ZERO, SCORE),
}

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
    ``zero_where_masked`` says that ``changed`` is 0 where WEIGHT is, as it is where nothing is kept.
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
    changed, vanishes = ir.weight, True
    if changed is not None:
        at_zero = _at_zero(changed, ir)
        vanishes = at_zero == Interval(0, 0)
        changed = _as_factor(changed)
        if not vanishes and degree_of(changed) not in (None, 0):
            vanishes = True
            changed = _unless_zero(changed)  # what multiplies it may be infinite where nothing is kept
    slope = _slope(ir)
    return Weights(
        forward,
        changed,
        None if slope is _ONE else slope if _is_finite(_at_zero(slope, ir)) else _unless_zero(slope),
        degree,
        vanishes,
    )


def _as_factor(changed: Expr) -> Expr:
    """WEIGHT / k_len -> WEIGHT * (1 / k_len): what a weight is multiplied by is often the same for many."""
    by_weight = gradients(changed, [WEIGHT])[WEIGHT]
    if degree_of(changed) != 1 or any(leaves(by_weight, op=Op.WEIGHT)):
        return changed
    return simple(Op.MUL, WEIGHT, by_weight)


def _slope(ir: AttentionIR) -> Expr:
    """By the weight for a softmax, by the score for the others; both over WEIGHT, by the derivative table."""
    changed = ir.weight or WEIGHT
    if ir.is_softmax:
        return gradients(changed, [WEIGHT])[WEIGHT]
    value = _NORMALIZED[ir.normalize]
    slope = gradients(substitute(changed, {WEIGHT: value}), [SCORE])[SCORE]
    known = {value: WEIGHT}
    if ir.normalize is Normalize.RELU:
        known[SCORE] = WEIGHT  # its derivative asks whether the score is above 0, as then the weight is
    return simplify(substitute(slope, known))


def _at_zero(value: Expr, ir: AttentionIR) -> Interval:
    """What ``value`` may be where WEIGHT is 0."""
    some = {word(name): make(Op.MAX, word(name), const(1)) for name in ("q_len", "k_len")}  # or no weight
    at_zero = substitute(simplify(substitute(value, {WEIGHT: _ZERO})), some)
    return interval_of(at_zero, ir=ir)[at_zero]


def _is_finite(found: Interval) -> bool:
    return not found.may_nan and max(-found.lo, found.hi) < INF


def _unless_zero(value: Expr) -> Expr:
    """``value``, but 0 where WEIGHT is."""
    return simple(Op.WHERE, simple(Op.EQ, WEIGHT, _ZERO), _ZERO, value)
