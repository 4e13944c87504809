"""The score chain as the kernels compute it: in base 2, from the raw product, constants pulled out.

    score = score - slopes[h] * abs(dist)
    ->  dot * (log2(e) * scale) - (log2(e) * slopes[h]) * abs(dist)         two multiply-adds a score
    score = cap * tanh(score / cap)
    ->  tanh(dot * (scale / cap)) * (log2(e) * cap)

The GPU's exponential is 2**x, so the softmax runs on ``log2(e) * score``. What is the same for a whole
program (scale, a param, ``slopes[h]``) gathers into one factor a term. Where the outermost factor is provably
positive it leaves the tile altogether: the row maximum is taken before it, and it folds into the one
multiply-add under the exponential.

Only rounding changes. What is compared, floored, made an int or used as an index keeps its form: there a
last bit could pick another bucket.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from attngen.analysis.derivative import gradients
from attngen.analysis.interval import intervals, is_positive
from attngen.analysis.rates import Rate, extend
from attngen.analysis.simplify import simple
from attngen.analysis.walk import fresh
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Normalize, Op, const, make, param, remake, substitute
from attngen.ir.types import Type

LOG2_E = const(1 / math.log(2))
ONE = const(1.0)

#: The variant's ``scale``, as the kernels name it. No spec can: it is a clause's word.
SCALE = param("scale", Type.FLOAT)

# Operands of these are read as bits or as places, not as magnitudes.
_EXACT = {Op.LT, Op.LE, Op.EQ, Op.NE, Op.FLOOR, Op.TO_INT, Op.LOAD}
_LINEAR = {Op.ADD, Op.SUB, Op.NEG, Op.WHERE}


@dataclass(frozen=True)
class Logits:
    """``factor * tile`` is ``log2(e) * score``; in both, the SCORE leaf stands for the raw product q.k.

    A sigmoid's bias is a part of the score; where nothing is exponentiated, as for relu, log2(e) is left out.

    ``factor`` is the same for a whole program and positive. ``derivative`` is d score / d (scale * q.k).
    """

    factor: Expr
    tile: Expr
    derivative: Expr

    @property
    def is_linear(self) -> bool:
        """Whether the score's derivative is the constant 1 (biases only)."""
        return self.derivative is ONE


def base2(ir: AttentionIR) -> Logits:
    """The logits of a variant and their derivative."""
    scale = ir.scale if ir.scale.op is Op.CONST else SCALE
    chain = _Chain(scale, ir.scale)
    score = argument_of(ir)
    factor, tile = chain.spread(score, ONE if ir.normalize is Normalize.RELU else LOG2_E)
    known = {SCALE: ir.scale}
    dtypes = {i.name: i.dtype for i in ir.inputs}
    true_factor = substitute(factor, known)
    if not is_positive(intervals(true_factor, dtypes=dtypes)[true_factor]):
        factor, tile = ONE, simple(Op.MUL, tile, factor)
    derivative = gradients(score, [SCORE])[SCORE]
    return Logits(factor, tile, chain.value(derivative))


def argument_of(ir: AttentionIR) -> Expr:
    """What the normalisation takes: the final score, with a sigmoid's bias."""
    return ir.final_score if ir.bias is None else simple(Op.ADD, ir.final_score, ir.bias)


def over_product(ir: AttentionIR, roots: Sequence[Expr]) -> tuple[Expr, ...]:
    """Expressions over the score ``scale * q.k``, written over the raw product ``q.k``; the base stays e."""
    chain = _Chain(ir.scale if ir.scale.op is Op.CONST else SCALE, ir.scale)
    return tuple(map(chain.value, roots))


class _Chain:
    """Rewrites expressions over SCORE = scale * dot into expressions over SCORE = dot.

    ``scale`` is what the kernels multiply by, ``meaning`` the clause: where that stands in a term (as in
    ``score + root * dot(a[b, h, q], c[b, k])`` with ``scale = root``), it is the same factor.
    """

    def __init__(self, scale: Expr, meaning: Expr) -> None:
        self._scale = scale
        self._meaning = meaning if meaning.args else None
        self._rates: dict[Expr, Rate] = {}
        self._plain: dict[Expr, Expr] = {}  # same form, scale * dot for the score
        self._pairs: dict[Expr, tuple[Expr, Expr]] = {}  # (program-wide factor, the rest)

    def value(self, root: Expr) -> Expr:
        """``root`` over the raw product."""
        self._visit(root)
        return self._joined(root)

    def spread(self, root: Expr, unit: Expr) -> tuple[Expr, Expr]:
        """(factor, rest) of ``unit * root``, the factor pushed through sums and conditionals."""
        self._visit(root)
        spread: dict[Expr, tuple[Expr, Expr]] = {}
        for node in _spine(root):
            if node.op not in _LINEAR or self._rates[node] <= Rate.PROGRAM:
                factor, rest = self._pairs[node]
                spread[node] = (simple(Op.MUL, unit, factor), rest)
            elif node.op is Op.NEG:
                factor, rest = spread[node.args[0]]
                spread[node] = (simple(Op.NEG, factor), rest)
            else:
                spread[node] = self._sum(node, spread)
        return spread[root]

    def _visit(self, root: Expr) -> None:
        extend(self._rates, root)
        for node in fresh(root, self._plain):
            args = tuple(self._plain[a] for a in node.args)
            self._plain[node] = simple(Op.MUL, self._scale, SCORE) if node is SCORE else remake(node, args)
            if node is self._meaning:
                self._plain[node] = self._scale
            if node.type is Type.FLOAT:
                self._pairs[node] = self._pair(node)

    def _pair(self, node: Expr) -> tuple[Expr, Expr]:
        if node is SCORE:
            return self._scale, SCORE
        if node is self._meaning:
            return self._scale, ONE
        if self._rates[node] <= Rate.PROGRAM:
            return node, ONE
        if node.op in (Op.MUL, Op.DIV):
            (fa, ra), (fb, rb) = (self._pairs[a] for a in node.args)
            return simple(node.op, fa, fb), simple(node.op, ra, rb)
        if node.op is Op.NEG:
            factor, rest = self._pairs[node.args[0]]
            return simple(Op.NEG, factor), rest
        if node.op in _LINEAR:
            return self._sum(node, self._pairs)
        if node.op in _EXACT:
            return ONE, self._plain[node]
        return ONE, remake(node, tuple(self._joined(a) for a in node.args))

    def _sum(self, node: Expr, pairs: dict[Expr, tuple[Expr, Expr]]) -> tuple[Expr, Expr]:
        """A sum, difference or conditional of two terms; a factor that both have stays outside."""
        *condition, first, second = node.args
        (fa, ra), (fb, rb) = pairs[first], pairs[second]
        guard = [self._plain[c] for c in condition]
        if fa is fb:
            return fa, simple(node.op, *guard, ra, rb)
        return ONE, simple(node.op, *guard, _product(fa, ra), _product(fb, rb))

    def _joined(self, node: Expr) -> Expr:
        return _product(*self._pairs[node]) if node in self._pairs else self._plain[node]


def _product(factor: Expr, rest: Expr) -> Expr:
    if rest is ONE:
        return factor
    return rest if factor is ONE else make(Op.MUL, rest, factor)


def _spine(root: Expr) -> list[Expr]:
    """The terms of a sum, and the sums, differences and conditionals that join them; operands first."""
    order: list[Expr] = []
    seen: set[Expr] = set()
    stack: list[tuple[Expr, bool]] = [(root, False)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            if node.op in _LINEAR:
                terms = node.args[1:] if node.op is Op.WHERE else node.args
                stack.extend((term, False) for term in terms)
    return order
