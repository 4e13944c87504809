"""A key that every row keeps, so that no row is empty.

    mask = causal            ->  k = pos, if q_len <= k_len: no query then lies before the first key
    mask = k < 4 or causal   ->  k = 0
    score + bias[h, q, k]    ->  none: the bias may hold -inf, which counts as masked

A few keys are tried, each put in the place of ``k``: the mask must then hold for every row and call, and the
score must not be -inf. What a float input or a param holds may be anything. Of q and k themselves less is
asked: that their products stay below 2**64, as those of finite float16 numbers do.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from attngen.analysis.interval import Interval, Values, certainly, is_finite, maybe_neg_inf
from attngen.analysis.magnitude import magnitude
from attngen.analysis.simplify import simplify
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Op, const, leaves, postorder, substitute, word

LARGEST_PRODUCT = 2.0**64
_MOST_NODES = 500  # of a score that is looked at key by key
_LEAST_SCORE = -(2.0**126)  # times log2(e), which the kernels compute with, it is still a float32


class Sizes(Enum):
    """What the sizes of a call must fulfil, as a spec would say it."""

    ANY = "True"
    SOME_KEYS = "k_len > 0"
    NO_FEWER_KEYS = "q_len <= k_len"


@dataclass(frozen=True)
class Nonempty:
    """Each row has the logit of ``key``, or of the sink where ``key`` is None, if the call's sizes are so."""

    key: Expr | None
    sizes: Sizes


@dataclass(frozen=True)
class MaybeEmpty:
    """No proof: ``by_score`` where a key is sure to pass the mask, but not to have a score above -inf."""

    by_score: bool


def nonempty(ir: AttentionIR) -> Nonempty | MaybeEmpty:
    """The proof that no row is empty, or what it lacks."""
    dtypes = {i.name: i.dtype for i in ir.inputs}
    if ir.sink is not None and is_finite(Values(dtypes).of(ir.sink)):
        return Nonempty(None, Sizes.ANY)
    scale = Values(dtypes).of(ir.scale)
    most = max(abs(scale.lo), abs(scale.hi)) * LARGEST_PRODUCT
    products = Interval(-most, most, scale.may_nan)  # a NaN is no empty row: it stays NaN
    is_kept = False
    for key, sizes in _candidates(has_sink=ir.sink is not None):
        mask, score = (simplify(substitute(e, {word("k"): key})) for e in (ir.mask, ir.final_score))
        if certainly(Values(dtypes).of(mask)) is not True:
            continue
        is_kept = True
        if len(postorder(score)) > _MOST_NODES:
            break
        if is_above(score, Values(dtypes, {SCORE: products}).of(score)):
            return Nonempty(key, sizes)
    return MaybeEmpty(by_score=is_kept)


def is_above(score: Expr, known: Interval) -> bool:
    """Whether a score, in either base, is never -inf."""
    bound = magnitude(score)
    capped = bound is not None and not any(leaves(bound, op=Op.LOAD))
    return not maybe_neg_inf(known) and (capped or known.lo >= _LEAST_SCORE)


def _candidates(*, has_sink: bool) -> tuple[tuple[Expr, Sizes], ...]:
    """Keys to try, and when every row has them. Without keys no kernel runs, but for a sink's sake."""
    return (
        (const(0), Sizes.SOME_KEYS if has_sink else Sizes.ANY),
        (word("pos"), Sizes.NO_FEWER_KEYS),
        (word("q"), Sizes.NO_FEWER_KEYS),
    )
