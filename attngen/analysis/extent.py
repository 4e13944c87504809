"""The least and the greatest value that an integer takes over one tile.

Over the rows ``q_first <= q <= q_last`` of a tile

    pos // 64 - 2   ->   from (q_first + (k_len - q_len)) // 64 - 2 to (q_last + (k_len - q_len)) // 64 - 2

Each bound is a sum of what a program knows as scalars. None: no bound is known. An operation is followed
where it is monotone in its tile-dependent operand, a sorted input's element in its index among them;
``x % n`` gives 0 to n - 1, or over a pair of tiles, where x stays within one period, what its ends give.
"""

from __future__ import annotations

from attngen.analysis import rates
from attngen.analysis.linear import Linear, Sums, extreme, term, to_expr
from attngen.analysis.rates import Rate
from attngen.analysis.simplify import simple
from attngen.analysis.walk import fresh
from attngen.ir.nodes import SEARCHES, Expr, Op, make, remake, word
from attngen.ir.types import Type

Extent = tuple[Linear | None, Linear | None]
_UNKNOWN: Extent = (None, None)
_SCALAR = (Rate.LAUNCH, Rate.PROGRAM)


class Extents:
    """Extents over a tile of rows (``axes`` "q"), of columns ("k") or a pair of both ("qk"), each once.

    ``rising`` names the inputs whose entries never fall along their last dimension.
    """

    def __init__(self, axes: str, sums: Sums, rising: frozenset[str] = frozenset()) -> None:
        self._rising = rising
        self._corners = {word(a): (term(word(f"{a}_first")), term(word(f"{a}_last"))) for a in axes}
        self._of_pairs = len(axes) > 1
        self._sums = sums
        self._rates: dict[Expr, Rate] = {}
        self._known: dict[Expr, Extent] = {}

    def rate(self, node: Expr) -> Rate:
        return rates.extend(self._rates, node)

    def of_sum(self, form: Linear) -> Extent:
        """The extent of a sum whose terms do not read the other axis (None bounds where one does)."""
        low: Linear | None = Linear(constant=form.constant)
        high: Linear | None = Linear(constant=form.constant)
        for node, factor in form.terms.items():
            below, above = self.of(node) if factor > 0 else reversed(self.of(node))
            low = low.plus(below, factor) if low is not None and below is not None else None
            high = high.plus(above, factor) if high is not None and above is not None else None
        return low, high

    def of(self, root: Expr) -> Extent:
        """The extent of one INT expression."""
        for node in fresh(root, self._known):
            self._known[node] = self._extent(node)
        return self._known[root]

    def _extent(self, node: Expr) -> Extent:
        if node.type is not Type.INT:
            return _UNKNOWN
        if node in self._corners:
            return self._corners[node]
        form = self._sums.of(node)
        if form.terms != {node: 1}:
            return self.of_sum(form)  # its terms lie below the node, or are words
        if self.rate(node) in _SCALAR:
            return form, form
        return self._follow(node)

    def _follow(self, node: Expr) -> Extent:
        op, args = node.op, node.args
        if op in (Op.MUL, Op.FLOORDIV):
            left, right = args
            if op is Op.MUL and self.rate(left) in _SCALAR:
                left, right = right, left
            if self.rate(right) in _SCALAR:
                return self._monotone(op, self.of(left), right)
        elif op is Op.MOD:
            is_scalar = self.rate(args[1]) in _SCALAR
            if is_scalar and self._sums.never_negative(self._sums.of(args[1]).plus(-1)):
                return self._remainder(*self.of(args[0]), args[1])
        elif op is Op.ABS:
            low, high = self.of(args[0])
            if low is not None and high is not None:
                minus_low, minus_high = low.times(-1), high.times(-1)
                return self._pick(Op.MAX, low, minus_high, Linear()), self._pick(Op.MAX, high, minus_low)
            return Linear(), None
        elif op in (Op.MIN, Op.MAX):
            return self._extreme(op, self.of(args[0]), self.of(args[1]))
        elif op is Op.CLAMP:
            raised = self._extreme(Op.MAX, self.of(args[0]), self.of(args[1]))
            return self._extreme(Op.MIN, raised, self.of(args[2]))
        elif op is Op.WHERE:
            return self._where(args[0], self.of(args[1]), self.of(args[2]))
        elif op in SEARCHES or (op is Op.LOAD and node.value in self._rising):
            return self._rise(node)
        return _UNKNOWN

    def _rise(self, node: Expr) -> Extent:
        """What never falls as its last operand rises, in a row that is one for the program."""
        *row, last = node.args
        low, high = self.of(last)
        if low is None or high is None or any(self.rate(index) not in _SCALAR for index in row):
            return _UNKNOWN
        ends = (remake(node, (*row, to_expr(end))) for end in (low, high))
        first, final = (term(end) for end in ends)
        return first, final

    def _remainder(self, low: Linear | None, high: Linear | None, divisor: Expr) -> Extent:
        most = self._sums.of(divisor).plus(-1)
        if low is None or high is None or not self._of_pairs:
            return Linear(), most
        ends = to_expr(low), to_expr(high)
        is_one_period = make(Op.EQ, *(make(Op.FLOORDIV, end, divisor) for end in ends))
        first, last = (make(Op.MOD, end, divisor) for end in ends)
        return (
            term(make(Op.WHERE, is_one_period, first, to_expr(Linear()))),
            term(make(Op.WHERE, is_one_period, last, to_expr(most))),
        )

    def _monotone(self, op: Op, extent: Extent, scalar: Expr) -> Extent:
        """``x * s`` and ``x // s``: rising in x for s >= 0, falling for s <= 0 (x // 0 is 0 for all x)."""
        low, high = extent
        if low is None or high is None:
            return _UNKNOWN
        ends = [self._sums.of(simple(op, to_expr(end), scalar)) for end in (low, high)]
        known = self._sums.of(scalar)
        if self._sums.never_negative(known):
            return ends[0], ends[1]
        if self._sums.never_negative(known.times(-1)):
            return ends[1], ends[0]
        return self._pick(Op.MIN, *ends), self._pick(Op.MAX, *ends)

    def _extreme(self, op: Op, first: Extent, second: Extent) -> Extent:
        bounds: list[Linear | None] = []
        for one, other, needs_both in (
            (first[0], second[0], op is Op.MIN),
            (first[1], second[1], op is Op.MAX),
        ):
            if one is None or other is None:
                bounds.append(None if needs_both else one or other)
            else:
                bounds.append(self._pick(op, one, other))
        return bounds[0], bounds[1]

    def _where(self, condition: Expr, chosen: Extent, other: Extent) -> Extent:
        if self.rate(condition) not in _SCALAR:  # either may come
            low = self._extreme(Op.MIN, chosen, other)[0]
            return low, self._extreme(Op.MAX, chosen, other)[1]
        bounds: list[Linear | None] = []
        for one, two in zip(chosen, other, strict=True):
            if one is None or two is None:
                bounds.append(None)
            else:
                bounds.append(self._sums.of(make(Op.WHERE, condition, to_expr(one), to_expr(two))))
        return bounds[0], bounds[1]

    def _pick(self, op: Op, *forms: Linear) -> Linear:
        return self._sums.of(extreme(op, [to_expr(form) for form in forms], self._sums))
