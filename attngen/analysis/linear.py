"""Integer expressions as sums: ``2 * k - (k - 3)`` is ``1*k + 3``.

Comparing, cancelling and solving are easy on sums. What is not a sum (``k // 64``, ``prefix[b]``) is a
term of its own. ``pos`` is spelled out, so that ``pos`` and ``q`` cancel:

    pos - k + 1   ->   q + k_len - q_len - k + 1   ->   printed as   q - k + (k_len - q_len) + 1

A sum of very many terms, or with a factor beyond int64, is a term of its own too.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from attngen.analysis.walk import fresh
from attngen.ir.nodes import CORNERS, FALSE, SEARCHES, SIZES, TRUE, Expr, Op, const, make, word
from attngen.ir.types import Type

_Q, _POS = word("q"), word("pos")
_Q_LEN, _K_LEN = word("q_len"), word("k_len")
_OFFSET = make(Op.SUB, _K_LEN, _Q_LEN)  # of pos against q
_NEVER_NEGATIVE = frozenset(word(name) for name in (*SIZES, *CORNERS, "b", "h", "h_kv", "q", "k"))
_MOST_TERMS = 32  # so that a long chain of sums takes linear time
_MAX_INT = 2**63 - 1
_LAST_TO_FIRST = ((word("q_last"), word("q_first")), (word("k_last"), word("k_first")))


@dataclass(frozen=True)
class Linear:
    """``sum(factor * term) + constant``; no factor is 0 and no term is itself a sum."""

    terms: Mapping[Expr, int] = field(default_factory=dict)
    constant: int = 0

    def plus(self, other: Linear | int, factor: int = 1) -> Linear:
        """``self + factor * other``."""
        if isinstance(other, int):
            return Linear(self.terms, self.constant + factor * other)
        terms = dict(self.terms)
        for term, count in other.terms.items():
            terms[term] = terms.get(term, 0) + factor * count
            if terms[term] == 0:
                del terms[term]
        return Linear(terms, self.constant + factor * other.constant)

    def times(self, factor: int) -> Linear:
        return Linear().plus(self, factor)


def term(node: Expr) -> Linear:
    """``node`` as the one term of a sum."""
    return Linear({node: 1})


class Sums:
    """The linear forms of nodes, each computed once."""

    def __init__(self) -> None:
        self._known: dict[Expr, Linear] = {}

    def of(self, root: Expr) -> Linear:
        """The linear form of an INT expression."""
        for node in fresh(root, self._known):
            # Booleans and floats below an opaque integer have no sum; the entry marks them as seen.
            form = self._sum(node) if node.type is Type.INT else Linear()
            self._known[node] = form if _is_small(form) else term(node)
        return self._known[root]

    def _sum(self, node: Expr) -> Linear:
        parts = [self._known[arg] for arg in node.args]
        if node.op is Op.CONST:
            return Linear(constant=int(node.value or 0))
        if node is _POS:
            return Linear({_Q: 1, _K_LEN: 1, _Q_LEN: -1})
        if node.op is Op.ADD:
            return parts[0].plus(parts[1])
        if node.op is Op.SUB:
            return parts[0].plus(parts[1], -1)
        if node.op is Op.NEG:
            return parts[0].times(-1)
        if node.op is Op.MUL and not parts[0].terms:
            return parts[1].times(parts[0].constant)
        if node.op is Op.MUL and not parts[1].terms:
            return parts[0].times(parts[1].constant)
        return term(node)

    def never_negative(self, form: Linear) -> bool:
        """Whether the sum is at least 0 for every tile and every call (False: not known)."""
        if _never_negative(form):
            return True
        form = self._without_searches(form)
        return _never_negative(form) or _never_negative(self._without_quotients(form))

    def _without_searches(self, form: Linear) -> Linear:
        """A lower bound of ``form``: where a row is searched for its own entry at i, the place is near i.

        The first entry of at least ``row[i]`` is at i or before, the first above it after i: the row rises.
        A position i before or beyond the row reads an end of it, and the search then gives what lies beyond
        every position.
        """
        result = form
        for node, factor in form.terms.items():
            if node.op not in SEARCHES or (node.op is Op.FIRST_ABOVE) != (factor > 0):
                continue
            *row, sought = node.args
            if sought.op is Op.LOAD and sought.value == node.value and sought.args[:-1] == tuple(row):
                place = self.of(sought.args[-1])
                if _is_position(place):
                    after = 1 if node.op is Op.FIRST_ABOVE else 0
                    result = result.plus(term(node), -factor).plus(place.plus(after), factor)
        return result

    def _without_quotients(self, form: Linear) -> Linear:
        """A lower bound of ``form`` where each ``n * (x // n)`` has become ``x`` less at most n - 1."""
        result = form
        for node, factor in form.terms.items():
            if node.op is Op.MUL and node.args[0].op is Op.FLOORDIV and node.args[0].args[1] is node.args[1]:
                dividend, divisor = (self.of(a) for a in node.args[0].args)
                if _never_negative(divisor.plus(-1)):
                    result = result.plus(term(node), -factor).plus(dividend, factor)
                    result = result.plus(divisor.plus(-1), -max(factor, 0))
            if node.op is not Op.FLOORDIV:
                continue
            dividend, divisor = (self.of(a) for a in node.args)
            n = divisor.constant
            if not divisor.terms and n > 0 and factor % n == 0:
                result = result.plus(term(node), -factor).plus(dividend, factor // n)
                result = result.plus(-max(factor // n, 0) * (n - 1))
        return result


def _is_position(form: Linear) -> bool:
    """Whether the sum is one of a tile's corners, or that of its queries counted among the keys."""
    corners = [node for node, factor in form.terms.items() if node.value in CORNERS and factor == 1]
    rest = {node: factor for node, factor in form.terms.items() if node not in corners}
    return form.constant == 0 and len(corners) == 1 and rest in ({}, {_K_LEN: 1, _Q_LEN: -1})


def _is_small(form: Linear) -> bool:
    numbers = (form.constant, *form.terms.values())
    return len(form.terms) <= _MOST_TERMS and all(abs(n) <= _MAX_INT for n in numbers)


def _never_negative(form: Linear) -> bool:
    terms = dict(form.terms)
    for last, first in _LAST_TO_FIRST:  # a tile's last is at least its first
        if terms.get(last, 0) > 0:
            terms[first] = terms.get(first, 0) + terms.pop(last)
    parts = [(factor, _least(node)) for node, factor in terms.items() if factor]
    if any(factor < 0 or least is None for factor, least in parts):
        return False
    return form.constant + sum(factor * (least or 0) for factor, least in parts) >= 0


def _least(node: Expr) -> int | None:
    """What ``node`` is at least, for every tile and every call; None: not known."""
    if node in _NEVER_NEGATIVE:
        return 0
    if node.op is Op.MAX and node.args[1].op is Op.CONST:
        return int(node.args[1].value or 0)
    return None


def at_most_zero(form: Linear, sums: Sums) -> Expr:
    """The condition ``form <= 0``, spelled without negative terms: ``k_first < prefix[b]``."""
    if sums.never_negative(form.times(-1)):
        return TRUE
    if sums.never_negative(form.plus(-1)):
        return FALSE
    gains = Linear({t: f for t, f in form.terms.items() if f > 0})
    losses = Linear({t: -f for t, f in form.terms.items() if f < 0})
    if form.constant == 1:
        return make(Op.LT, to_expr(gains), to_expr(losses))
    if form.constant > 0:
        return make(Op.LE, to_expr(gains.plus(form.constant)), to_expr(losses))
    return make(Op.LE, to_expr(gains), to_expr(losses.plus(-form.constant)))


def _rank(node: Expr) -> int:
    if node is _OFFSET:
        return 1
    return 3 if node.value in SIZES else 0 if node.op is Op.WORD else 2


def to_expr(form: Linear) -> Expr:
    """The sum as an expression, positive terms first: ``q_last + (k_len - q_len) - window + 1``."""
    terms = dict(form.terms)
    shift = terms.get(_K_LEN, 0)
    if shift and shift == -terms.get(_Q_LEN, 0):
        del terms[_K_LEN], terms[_Q_LEN]
        terms[_OFFSET] = shift
    ordered = sorted(terms.items(), key=lambda item: _rank(item[0]))
    gains = [_scaled(node, n) for node, n in ordered if n > 0]
    losses = [_scaled(node, -n) for node, n in ordered if n < 0]
    constant = form.constant
    if not gains and (constant or not losses):
        gains, constant = [const(constant)], 0
    total = gains[0] if gains else make(Op.NEG, losses.pop(0))
    for gain in gains[1:]:
        total = make(Op.ADD, total, gain)
    for loss in losses:
        total = make(Op.SUB, total, loss)
    if constant:
        total = make(Op.ADD if constant > 0 else Op.SUB, total, const(abs(constant)))
    return total


def _scaled(node: Expr, factor: int) -> Expr:
    return node if factor == 1 else make(Op.MUL, node, const(factor))


def extreme(op: Op, values: Iterable[Expr], sums: Sums) -> Expr:
    """The MIN or MAX (``op``) of INT expressions, without those that another is sure to beat."""
    kept: list[Expr] = []
    for value in values:
        if any(_beats(op, other, value, sums) for other in kept):
            continue
        kept = [other for other in kept if not _beats(op, value, other, sums)]
        kept.append(value)
    result = kept[0]
    for value in kept[1:]:
        result = make(op, result, value)
    return result


def _beats(op: Op, first: Expr, second: Expr, sums: Sums) -> bool:
    gap = sums.of(first).plus(sums.of(second), -1)
    return sums.never_negative(gap if op is Op.MAX else gap.times(-1))
