"""Loop bounds from the mask: which keys a tile of queries must visit, and which need no mask.

    mask = dist >= 0 and dist < 4096         over the rows q_first <= q <= q_last, o = k_len - q_len
    ->  possible [q_first + o - 4095, q_last + o + 1)    some row may keep these keys
        certain  [q_last + o - 4095, q_first + o + 1)    every row keeps these keys

Each comparison of integers is solved for the streamed variable: sums are collected, then +, -, factors,
``//`` by a constant, ``abs``, ``min``, ``max``, ``clamp`` and ``where`` are peeled off, which leaves
``k <= e`` or ``k >= e``. The tile's extent of ``e`` gives the outward bound (possible) and the inward one
(certain). ``and``, ``or`` and ``not`` then combine lists of pieces (see ``pieces``), which are gathered into
a few ranges, apart from one another: the first keys and a window behind the query. A condition free of both
variables (``h % 2 == 0``) guards its pieces.

An input that is declared ``sorted`` rises with its last index, so ``doc[b, k] <= e`` holds up to where the
row passes e, which a search finds: ``doc[b, pos] == doc[b, k]`` becomes two searches in the table.

A divisor or a factor that only the call knows, a param, is solved like a constant where it is positive (see
``divisors``).

Not understood, hence possible everywhere and certain nowhere: comparisons of floats where they depend on a
position, ``%`` of the streamed variable, the variable in two terms that do not cancel, times or divided by
what may be negative or varies, and other inputs indexed by the streamed variable. Always safe: such a tile
is visited and masked. So is a comparison whose sides may pass int64, which 64 bits would wrap around; a bound
that may do so for some inputs is held back first, or dropped (see ``saturate``).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from attngen.analysis.divisors import guarded
from attngen.analysis.extent import Extents
from attngen.analysis.interval import Values, fits_int32, fits_int64
from attngen.analysis.linear import Linear, Sums, at_most_zero, term, to_expr
from attngen.analysis.pieces import (
    EVERYTHING,
    NOTHING,
    Bound,
    Intervals,
    Piece,
    Pieces,
    both,
    either,
    opposite,
    provided,
)
from attngen.analysis.rates import Rate
from attngen.analysis.saturate import Saturation
from attngen.analysis.simplify import simplify
from attngen.ir.nodes import (
    FALSE,
    SEARCHES,
    TRUE,
    Expr,
    Input,
    Op,
    const,
    first,
    leaves,
    make,
    postorder,
    word,
)
from attngen.ir.types import Type

__all__ = ["Bound", "Range", "hulls", "key_ranges", "open_conditions", "query_ranges"]

_MOST_STEPS = 64  # of solving one comparison; beyond, it is not understood
_MOST_STEPS_IN_ALL = 2_000  # of solving all comparisons of a mask


@dataclass(frozen=True)
class Range:
    """What a tile visits (``possible``), and the part of it that needs no mask (``certain``, or None).

    Both are half-open intervals of INT expressions in the tile's corners, sizes, params and inputs indexed
    by ``b``, ``h`` and ``h_kv``; a lower end may be negative, an upper end may pass the length, and an end
    may lie before its start: then the interval is empty.
    """

    possible: Bound
    certain: Bound | None


@lru_cache(maxsize=8)  # the lints and the plan ask for the same mask
def key_ranges(mask: Expr, inputs: tuple[Input, ...] = ()) -> tuple[Range, ...]:
    """The keys of a query tile with rows ``q_first`` to ``q_last`` (both included).

    A key that some row keeps lies in some ``possible``; every row keeps each key of a ``certain``. Usually
    the ranges are apart and in rising order, but not at every call. At least one. ``inputs`` says which
    inputs are sorted, and what ints they hold: one that is not among them counts as int64.
    """
    return _ranges(mask, inputs, streamed="k", tiled="q")


def query_ranges(mask: Expr, inputs: tuple[Input, ...] = ()) -> tuple[Range, ...]:
    """The queries of a key tile with columns ``k_first`` to ``k_last``: the transpose of ``key_ranges``."""
    return _ranges(mask, inputs, streamed="q", tiled="k")


def hulls(mask: Expr, inputs: tuple[Input, ...] = ()) -> tuple[Range, Range]:
    """One range of keys and one of queries that hold all ranges, with no part that needs no mask."""
    keys = _ranges(mask, inputs, streamed="k", tiled="q", joined=True)
    queries = _ranges(mask, inputs, streamed="q", tiled="k", joined=True)
    return Range(keys[0].possible, None), Range(queries[0].possible, None)


def open_conditions(mask: Expr, inputs: tuple[Input, ...] = ()) -> tuple[Expr, ...]:
    """The comparisons and reads in the mask that bound no keys: they count as possible everywhere."""
    solver = _solver(inputs, "k", "q")
    solver.region(guarded(mask, solver.values)[1])
    return solver.open_conditions


def _solver(inputs: tuple[Input, ...], streamed: str, tiled: str) -> _Solver:
    values = Values({i.name: i.dtype for i in inputs})
    return _Solver(streamed, tiled, Sums(), values, frozenset(i.name for i in inputs if i.sorted))


def _ranges(
    mask: Expr, inputs: tuple[Input, ...], *, streamed: str, tiled: str, joined: bool = False
) -> tuple[Range, ...]:
    solver = _solver(inputs, streamed, tiled)
    condition, positive = guarded(mask, solver.values)
    if condition is TRUE:
        return _solved(solver, mask, streamed, joined)
    found = _solved(solver, positive, streamed, joined)
    (otherwise,) = _solved(_solver(inputs, streamed, tiled), mask, streamed, joined=True)
    length = word(f"{streamed}_len")
    others = (otherwise, *[_NO_RANGE] * (len(found) - 1))
    return tuple(_where(condition, r, other, length) for r, other in zip(found, others, strict=True))


_NO_RANGE = Range(Bound(const(0), const(0)), None)


def _where(condition: Expr, chosen: Range, otherwise: Range, length: Expr) -> Range:
    """The one range where ``condition`` holds, else the other; certain only where it does."""

    def end(one: Expr | None, other: Expr | None, default: Expr) -> Expr | None:
        pair = one or default, other or default
        return one if pair[0] is pair[1] else make(Op.WHERE, condition, *pair)

    def bound(one: Bound, other: Bound) -> Bound:
        return Bound(end(one.lo, other.lo, const(0)), end(one.hi, other.hi, length))

    possible = bound(chosen.possible, otherwise.possible)
    if chosen.certain is None:
        return Range(possible, otherwise.certain)
    return Range(possible, bound(chosen.certain, otherwise.certain or Bound(chosen.certain.lo, const(0))))


def _solved(solver: _Solver, mask: Expr, streamed: str, joined: bool) -> tuple[Range, ...]:
    region = solver.region(mask)
    intervals = Intervals(f"{streamed}_len", solver.sums)
    safe = Saturation(solver.values)
    clusters = [region.possible] if joined else intervals.apart(region.possible)
    found = []
    for possible in map(intervals.hull, clusters):
        certain = intervals.best(region.certain, possible if len(clusters) > 1 else None)
        found.append(Range(_wider(possible, safe), certain and _narrower(certain, safe)))
    return tuple(found)


def _wider(bound: Bound, safe: Saturation) -> Bound:
    """The bound as 64 bits compute it, without an end that they cannot."""
    return Bound(*(end and safe.end(simplify(end)) for end in (bound.lo, bound.hi)))


def _narrower(bound: Bound, safe: Saturation) -> Bound | None:
    """The bound as 64 bits compute it, if they can."""
    ends = _wider(bound, safe)
    dropped = (bound.lo and not ends.lo) or (bound.hi and not ends.hi)
    return None if dropped else ends


@dataclass(frozen=True)
class _Region:
    """Where a condition may hold for some row of the tile, and where it holds for every row."""

    possible: Pieces
    certain: Pieces

    def __and__(self, other: _Region) -> _Region:
        return _Region(
            both(self.possible, other.possible, widen=True),
            both(self.certain, other.certain, widen=False),
        )

    def __or__(self, other: _Region) -> _Region:
        return _Region(
            either(self.possible, other.possible, widen=True),
            either(self.certain, other.certain, widen=False),
        )


_ANYWHERE = _Region(EVERYTHING, NOTHING)
_EVERYWHERE = _Region(EVERYTHING, EVERYTHING)
_NOWHERE = _Region(NOTHING, NOTHING)


class _Solver:
    def __init__(self, streamed: str, tiled: str, sums: Sums, values: Values, rising: frozenset[str]) -> None:
        self._variable = word(streamed)
        self.values = values
        self._exact: dict[Expr, bool] = {}  # whether nothing in a node's own arithmetic may wrap around
        self.sums = sums
        self._rising = rising
        self._extents = Extents(tiled, sums, rising)
        own = Rate.COLUMN if streamed == "k" else Rate.ROW
        self._streamed_rates = (own, Rate.TILE)
        # For each BOOL node: where it is true, and where it is false.
        self._regions: dict[Expr, tuple[_Region, _Region]] = {}
        self._steps = self._last_step = 0

    def region(self, mask: Expr) -> _Region:
        for node in postorder(mask):
            self._exact[node] = self._is_exact(node)
            if node.type is Type.BOOL:
                self._regions[node] = self._bool(node)
        return self._regions[mask][0]

    @property
    def open_conditions(self) -> tuple[Expr, ...]:
        """Of what was solved, the parts that no piece tells from everything."""
        undecided = (node for node, found in self._regions.items() if _ANYWHERE in found)
        return tuple(node for node in undecided if not any(a.type is Type.BOOL for a in node.args))

    def _is_exact(self, node: Expr) -> bool:
        if node.op is Op.LOAD or node.type is Type.FLOAT or node.op is Op.TO_INT:
            return True  # taken as it is, whatever its operands are
        fits = node.type is Type.BOOL or fits_int64(self.values.of(node))
        return fits and all(self._exact[a] for a in node.args)

    def _bool(self, node: Expr) -> tuple[_Region, _Region]:
        if node is TRUE:
            return _EVERYWHERE, _NOWHERE
        if node is FALSE:
            return _NOWHERE, _EVERYWHERE
        parts = [self._regions[a] for a in node.args if a.type is Type.BOOL]
        if node.op is Op.NOT:
            return parts[0][1], parts[0][0]
        if node.op is Op.AND:
            return parts[0][0] & parts[1][0], parts[0][1] | parts[1][1]
        if node.op is Op.OR:
            return parts[0][0] | parts[1][0], parts[0][1] & parts[1][1]
        if node.op is Op.WHERE:
            test, chosen, other = parts
            return (test[0] & chosen[0]) | (test[1] & other[0]), (test[0] & chosen[1]) | (test[1] & other[1])
        if node.op in (Op.EQ, Op.NE) and len(parts) == 2:
            (left, not_left), (right, not_right) = parts
            same, different = (left & right) | (not_left & not_right), (left & not_right) | (not_left & right)
            return (same, different) if node.op is Op.EQ else (different, same)
        return self._atom(node)

    def _atom(self, node: Expr) -> tuple[_Region, _Region]:
        if not self._exact[node]:
            return _ANYWHERE, _ANYWHERE
        if self._extents.rate(node) in (Rate.LAUNCH, Rate.PROGRAM):
            return _given(node), _given(opposite(node))
        if node.op not in (Op.LT, Op.LE, Op.EQ, Op.NE) or node.args[0].type is not Type.INT:
            return _ANYWHERE, _ANYWHERE
        self._last_step = min(self._steps + _MOST_STEPS, _MOST_STEPS_IN_ALL)
        gap = self.sums.of(node.args[0]).plus(self.sums.of(node.args[1]), -1)
        if node.op in (Op.LT, Op.LE):
            strict = 1 if node.op is Op.LT else 0
            return self._at_most_zero(gap.plus(strict)), self._at_most_zero(gap.times(-1).plus(1 - strict))
        equal = self._at_most_zero(gap) & self._at_most_zero(gap.times(-1))
        ends = (end for piece in equal.possible for end in (*piece.los, *piece.his))
        if any(node.op in SEARCHES for node in postorder(*ends)):
            equal = self._only_if_alike(gap, equal)
        other = self._at_most_zero(gap.plus(1)) | self._at_most_zero(gap.times(-1).plus(1))
        return (equal, other) if node.op is Op.EQ else (other, equal)

    def _at_most_zero(self, form: Linear) -> _Region:
        """Where ``form <= 0``."""
        self._steps += 1
        varying = [t for t in form.terms if self._extents.rate(t) in self._streamed_rates]
        if not varying:
            low, high = self._extents.of_sum(form)
            possible = at_most_zero(low, self.sums) if low is not None else TRUE
            certain = at_most_zero(high, self.sums) if high is not None else FALSE
            return _Region(provided(possible), provided(certain))
        if len(varying) > 1:
            return self._with_slack(form, varying)
        if self._steps > self._last_step:
            return _ANYWHERE
        node = varying[0]
        factor = form.terms[node]
        rest = form.plus(Linear({node: factor}), -1)
        if factor > 0:  # node <= -rest / factor, rounded down
            return self._below(node, self._over(rest.times(-1), factor))
        return self._above(node, self._over(rest.times(-1), -factor).times(-1))  # rounded up

    def _with_slack(self, form: Linear, varying: list[Expr]) -> _Region:
        """Where ``form <= 0``, its remainders (``k % n // m``) taken at their best and at their worst."""
        slack = [t for t in varying if fits_int32(self.values.of(t)) and any(leaves(t, op=Op.MOD))]
        if len(varying) - len(slack) != 1 or self._steps > self._last_step:
            return _ANYWHERE
        least = most = form
        for node in slack:
            values, factor = self.values.of(node), form.terms[node]
            ends = sorted(int(end) * factor for end in (values.lo, values.hi))
            least, most = (
                x.plus(term(node), -factor).plus(end) for x, end in zip((least, most), ends, strict=True)
            )
        return _Region(self._at_most_zero(least).possible, self._at_most_zero(most).certain)

    def _only_if_alike(self, gap: Linear, equal: _Region) -> _Region:
        """Rows that ask for two values are never kept by one position: then no further search is needed."""
        fixed = Linear(
            {t: n for t, n in gap.terms.items() if self._extents.rate(t) not in self._streamed_rates}
        )
        low, high = self._extents.of_sum(fixed)
        if low is None or high is None:
            return equal
        if all(factor < 0 for factor in fixed.terms.values()):
            low, high = high.times(-1), low.times(-1)
        alike = provided(make(Op.EQ, to_expr(low), to_expr(high)))
        return _Region(equal.possible, both(equal.possible, alike, widen=False))

    def _over(self, form: Linear, divisor: int) -> Linear:
        if divisor == 1:
            return form
        if not form.terms:
            return Linear(constant=form.constant // divisor)
        return self.sums.of(make(Op.FLOORDIV, to_expr(form), const(divisor)))

    def _below(self, node: Expr, end: Linear) -> _Region:
        """Where ``node <= end``; the end does not read the streamed variable."""
        if node is self._variable:
            low, high = self._extents.of_sum(end)
            return _Region(
                EVERYTHING if high is None else (Piece(his=(to_expr(high.plus(1)),)),),
                NOTHING if low is None else (Piece(his=(to_expr(low.plus(1)),)),),
            )
        forms = [self.sums.of(a) if a.type is Type.INT else Linear() for a in node.args]
        under = [form.plus(end, -1) for form in forms]
        solve = self._at_most_zero
        if node.op is Op.ABS:
            return solve(under[0]) & solve(forms[0].plus(end).times(-1))
        if node.op is Op.MIN:
            return solve(under[0]) | solve(under[1])
        if node.op is Op.MAX:
            return solve(under[0]) & solve(under[1])
        if node.op is Op.CLAMP:  # min(max(x, low), high)
            return (solve(under[0]) & solve(under[1])) | solve(under[2])
        if node.op is Op.WHERE:
            true, false = self._regions[node.args[0]]
            return (true & solve(under[1])) | (false & solve(under[2]))
        if node.op is Op.FLOORDIV and not forms[1].terms:
            form, divisor = _positive(forms[0], forms[1].constant)
            if divisor == 0:
                return solve(end.times(-1))
            return solve(form.plus(end, -divisor).plus(1 - divisor))  # x <= end * n + n - 1
        if node.op is Op.FLOORDIV and self._is_positive(node.args[1]):
            return solve(forms[0].plus(self._times(end, node.args[1]), -1).plus(forms[1], -1).plus(1))
        if node.op is Op.MUL and (sides := self._by_positive(node)):
            return solve(self.sums.of(sides[0]).plus(self._divided(end, sides[1]), -1))
        if node.op is Op.LOAD and node.value in self._rising:
            return solve(forms[-1].plus(_place(Op.FIRST_ABOVE, node, end), -1).plus(1))
        return _ANYWHERE

    def _above(self, node: Expr, end: Linear) -> _Region:
        """Where ``node >= end``."""
        if node is self._variable:
            low, high = self._extents.of_sum(end)
            return _Region(
                EVERYTHING if low is None else (Piece(los=(to_expr(low),)),),
                NOTHING if high is None else (Piece(los=(to_expr(high),)),),
            )
        forms = [self.sums.of(a) if a.type is Type.INT else Linear() for a in node.args]
        over = [end.plus(form, -1) for form in forms]
        solve = self._at_most_zero
        if node.op is Op.ABS:
            return solve(over[0]) | solve(forms[0].plus(end))
        if node.op is Op.MIN:
            return solve(over[0]) & solve(over[1])
        if node.op is Op.MAX:
            return solve(over[0]) | solve(over[1])
        if node.op is Op.CLAMP:
            return (solve(over[0]) | solve(over[1])) & solve(over[2])
        if node.op is Op.WHERE:
            true, false = self._regions[node.args[0]]
            return (true & solve(over[1])) | (false & solve(over[2]))
        if node.op is Op.FLOORDIV and not forms[1].terms:
            form, divisor = _positive(forms[0], forms[1].constant)
            if divisor == 0:
                return solve(end)
            return solve(end.times(divisor).plus(form, -1))  # x >= end * n
        if node.op is Op.FLOORDIV and self._is_positive(node.args[1]):
            return solve(self._times(end, node.args[1]).plus(forms[0], -1))
        if node.op is Op.MUL and (sides := self._by_positive(node)):  # rounded up
            return solve(self._divided(end.times(-1), sides[1]).times(-1).plus(self.sums.of(sides[0]), -1))
        if node.op is Op.LOAD and node.value in self._rising:
            return solve(_place(Op.FIRST, node, end).plus(forms[-1], -1))
        return _ANYWHERE

    def _is_positive(self, scalar: Expr) -> bool:
        """Whether this is one number above 0 for a whole program."""
        return self._extents.rate(scalar) in (Rate.LAUNCH, Rate.PROGRAM) and self.values.of(scalar).lo > 0

    def _by_positive(self, product: Expr) -> tuple[Expr, Expr] | None:
        """The two sides of a product, the second a positive scalar, if one is."""
        for one, other in (product.args, product.args[::-1]):
            if self._is_positive(other):
                return one, other
        return None

    def _times(self, form: Linear, factor: Expr) -> Linear:
        """The product as a sum, term by term."""
        total = self.sums.of(factor).times(form.constant)
        for node, count in form.terms.items():
            total = total.plus(self.sums.of(make(Op.MUL, node, factor)), count)
        return total

    def _divided(self, form: Linear, divisor: Expr) -> Linear:
        return self.sums.of(make(Op.FLOORDIV, to_expr(form), divisor))


def _place(op: Op, node: Expr, value: Linear) -> Linear:
    """The first last index at which the row that ``node`` reads, a sorted input's, reaches ``value``."""
    return term(first(op, str(node.value), node.args[:-1], to_expr(value)))


def _positive(form: Linear, divisor: int) -> tuple[Linear, int]:
    """``x // n`` with n >= 0: ``x // -n`` is ``-x // n``."""
    return (form.times(-1), -divisor) if divisor < 0 else (form, divisor)


def _given(condition: Expr) -> _Region:
    return _Region(provided(condition), provided(condition))
