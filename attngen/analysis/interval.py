"""The least and greatest value of every node, over all calls and all positions.

    1.0 / sqrt(float(head_dim))   ->   [0.0312, 1.0]: positive and finite, so no guard is needed
    abs(pos - k)                  ->   [0, 2**30 - 1]: fits int32

Integers are what 64 bits compute: exact, but not bounded once a result may pass int64 and wrap around (a sum
that comes back into int64 is exact again). Floats are what a float32 computation may give: each result is
widened outward to float32 numbers, values too small for a normal float32 may be 0, too large ones infinite.
Booleans are 0 or 1. Differences of a position and its length are taken together, so that
``q + (k_len - q_len)`` stays below ``k_len``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from attngen.analysis.float32 import to_float32
from attngen.analysis.linear import Linear, Sums
from attngen.analysis.walk import fresh
from attngen.ir.nodes import BEYOND, SEARCHES, AttentionIR, Expr, Op, word
from attngen.ir.types import Type

Number = int | float  # of an int: an int or an infinity

INF = math.inf
_LONGEST = 2**30  # what a launch allows for a length or a size
_WIDEST_HEAD = 1024
_FLOAT32_TINY = 2.0**-126  # below it, a result may be flushed to 0


@dataclass(frozen=True)
class Interval:
    """``lo <= value <= hi``, or NaN where ``may_nan``. The ends may be infinite."""

    lo: Number
    hi: Number
    may_nan: bool = False

    def hull(self, other: Interval) -> Interval:
        return Interval(min(self.lo, other.lo), max(self.hi, other.hi), self.may_nan or other.may_nan)

    def meet(self, other: Interval) -> Interval:
        """What two correct intervals of one value agree on."""
        return Interval(max(self.lo, other.lo), min(self.hi, other.hi), self.may_nan and other.may_nan)


ANY_INT = Interval(-INF, INF)
ANY_FLOAT = Interval(-INF, INF, may_nan=True)
_FINITE = Interval(-(2 - 2**-23) * 2.0**127, (2 - 2**-23) * 2.0**127, may_nan=True)
_INT32 = Interval(-(2**31), 2**31 - 1)
_INT64 = Interval(-(2**63), 2**63 - 1)
_BOOL = Interval(0, 1)

_INDEX = Interval(0, _LONGEST - 1)
_WORDS = {
    "pos": Interval(-_LONGEST + 1, _LONGEST - 1),
    **dict.fromkeys(("q", "k", "b", "h", "h_kv", "q_first", "q_last", "k_first", "k_last"), _INDEX),
    **dict.fromkeys(("q_len", "k_len"), Interval(0, _LONGEST)),
    **dict.fromkeys(("batch", "heads", "kv_heads"), Interval(1, _LONGEST)),
    **dict.fromkeys(("head_dim", "v_dim"), Interval(1, _WIDEST_HEAD)),
}
_LOADED = {"int32": _INT32, "int64": _INT64, "bool": _BOOL}

# A position less the length that it lies in (``pos`` less k_len too); a tile's last less its first.
_BELOW = Interval(-_LONGEST, -1)
_PAIRS = (
    *((name, "q_len", _BELOW) for name in ("q", "q_first", "q_last")),
    *((name, "k_len", _BELOW) for name in ("k", "k_first", "k_last")),
    *((f"{axis}_last", f"{axis}_first", Interval(0, _LONGEST)) for axis in "qk"),
    ("h", "heads", _BELOW),
    ("h_kv", "kv_heads", _BELOW),
    ("b", "batch", _BELOW),
)


def fits_int32(interval: Interval) -> bool:
    """Whether every value of an INT fits 32 bits."""
    return interval.lo >= _INT32.lo and interval.hi <= _INT32.hi


def fits_int64(interval: Interval) -> bool:
    """Whether every value of an INT fits 64 bits, so that none wraps around."""
    return interval.lo >= _INT64.lo and interval.hi <= _INT64.hi


def is_positive(interval: Interval) -> bool:
    """Whether the value is above 0 for certain (and not NaN)."""
    return interval.lo > 0 and not interval.may_nan


def is_finite(interval: Interval) -> bool:
    """Whether the value is neither infinite nor NaN for certain."""
    return interval.lo > -INF and interval.hi < INF and not interval.may_nan


def excludes_zero(interval: Interval) -> bool:
    """Whether the value is not 0 for certain (NaN is not 0)."""
    return interval.lo > 0 or interval.hi < 0


def maybe_neg_inf(interval: Interval) -> bool:
    """Whether a FLOAT may be minus infinity, which a score means as masked."""
    return interval.lo == -INF


def certainly(interval: Interval) -> bool | None:
    """The value of a BOOL where only one is possible, else None."""
    return bool(interval.lo) if interval.lo == interval.hi else None


def interval_of(*roots: Expr, ir: AttentionIR) -> dict[Expr, Interval]:
    """The interval of every node under ``roots``, which are expressions of ``ir``."""
    return intervals(*roots, dtypes={i.name: i.dtype for i in ir.inputs})


def intervals(*roots: Expr, dtypes: Mapping[str, str]) -> dict[Expr, Interval]:
    """The interval of every node under ``roots``; ``dtypes`` tells what each input holds.

    An input that ``dtypes`` does not name counts as int64, or as any float.
    """
    values = Values(dtypes)
    for root in roots:
        values.of(root)
    return values.known


class Values:
    """The intervals of nodes, each computed once; those of ``given`` are taken for granted."""

    def __init__(self, dtypes: Mapping[str, str], given: Mapping[Expr, Interval] | None = None) -> None:
        self.known: dict[Expr, Interval] = dict(given or {})
        self._dtypes = dtypes
        self._sums = Sums()

    def of(self, root: Expr) -> Interval:
        """The interval of one expression."""
        for node in fresh(root, self.known):
            self.known[node] = _interval(node, self.known, self._sums, self._dtypes)
        return self.known[root]


def _interval(node: Expr, known: Mapping[Expr, Interval], sums: Sums, dtypes: Mapping[str, str]) -> Interval:
    args = [known[a] for a in node.args]
    if not node.args or node.op in (Op.LOAD, Op.VECTOR, Op.DOT):
        return _leaf(node, dtypes)
    if node.op in SEARCHES:
        return Interval(-BEYOND, BEYOND)
    if node.args[-1].type is Type.INT and node.op in (Op.ADD, Op.SUB, Op.LT, Op.LE, Op.EQ, Op.NE):
        return _of_sums(node, args, known, sums)
    if node.op is Op.WHERE:
        return _where(node, known)
    if node.op in (Op.AND, Op.OR):
        pick = min if node.op is Op.AND else max
        return Interval(pick(args[0].lo, args[1].lo), pick(args[0].hi, args[1].hi))
    if node.op is Op.NOT:
        return Interval(1 - args[0].hi, 1 - args[0].lo)
    if node.op in _COMPARE:
        return _compare(node.op, *args)
    if node.op is Op.MUL and node.args[0] is node.args[1]:
        args = [_abs(args[0])] * 2  # a square
    if node.op is Op.MUL and _is_soft_cap(*node.args):
        return _float_multiply(*args).meet(_FINITE)
    if node.args[-1].type is Type.INT:
        result = _INTS[node.op](*args)
        return _unless_wrapped(result) if node.op in _MAY_WRAP else result
    result = _FLOATS[node.op](*args)
    return result if node.op is Op.TO_INT else _as_float32(result)


def _is_soft_cap(one: Expr, other: Expr) -> bool:
    """``c * tanh(x / c)``: at most abs(c), and NaN where c is infinite, so never infinite itself."""
    for c, curve in ((one, other), (other, one)):
        inside = curve.args[0] if curve.op is Op.TANH else curve
        if inside is not curve and inside.op is Op.DIV and inside.args[1] is c:
            return True
    return False


def _where(node: Expr, known: Mapping[Expr, Interval]) -> Interval:
    """Both branches, each where it is taken: ``n if n < 8 else 9`` is at most 9."""
    condition, *branches = node.args
    test = certainly(known[condition])
    if test is not None:
        return known[branches[0 if test else 1]]
    chosen, other = (
        _narrowed(branch, condition, truth, known)
        for branch, truth in zip(branches, (True, False), strict=True)
    )
    return chosen.hull(other)


def _narrowed(branch: Expr, condition: Expr, truth: bool, known: Mapping[Expr, Interval]) -> Interval:
    """The interval of an INT where ``condition`` compares the very same INT, and is true (or false)."""
    own = known[branch]
    if branch.type is not Type.INT or condition.op not in (Op.LT, Op.LE):
        return own
    left, right = condition.args if truth else condition.args[::-1]
    gap = 1 if (condition.op is Op.LT) is truth else 0  # left + gap <= right
    lo, hi = own.lo, own.hi
    if branch is left:
        hi = min(hi, known[right].hi - gap)
    if branch is right:
        lo = max(lo, known[left].lo + gap)
    return Interval(lo, hi) if lo <= hi else own


def _leaf(node: Expr, dtypes: Mapping[str, str]) -> Interval:
    if node.op is Op.CONST:
        value = node.value
        assert value is not None and not isinstance(value, str)
        if isinstance(value, float):
            return _as_float32(Interval(value, value)) if value == value else ANY_FLOAT
        return Interval(int(value), int(value))
    if node.op is Op.WORD:
        return _WORDS[str(node.value)]
    if node.op is Op.SIZE:
        return Interval(0, _LONGEST)
    if node.type is Type.BOOL:
        return _BOOL
    if node.op is Op.PARAM:
        return _INT32 if node.type is Type.INT else ANY_FLOAT  # a call may pass infinity, even NaN
    if node.type is Type.INT:
        return _LOADED.get(dtypes.get(str(node.value), "int64"), _INT64)
    if node.op is Op.WEIGHT:
        return Interval(0, INF, may_nan=True)
    return ANY_FLOAT  # the score, a product, and what a float input holds


def _of_sums(node: Expr, args: list[Interval], known: Mapping[Expr, Interval], sums: Sums) -> Interval:
    if node.op in (Op.ADD, Op.SUB):
        result = _add(*args) if node.op is Op.ADD else _subtract(*args)
        # Wrapping commutes with sums, so either bound alone holds where it fits.
        return _unless_wrapped(result).meet(_unless_wrapped(_of_sum(sums.of(node), known)))
    forms = [sums.of(arg) for arg in node.args]
    form = forms[0].plus(forms[1], -1)
    gap = _subtract(*args)
    # Two sums that wrapped compare otherwise than their difference with 0, unless they are the same sum.
    if form == Linear() or all(fits_int64(_of_sum(one, known)) for one in forms):
        gap = gap.meet(_of_sum(form, known))
    return _compare(node.op, gap, Interval(0, 0))


def _unless_wrapped(x: Interval) -> Interval:
    """``x``, or no bound where a value may pass int64: exact ends would double in length at each product."""
    return x if fits_int64(x) else ANY_INT


def _of_sum(form: Linear, known: Mapping[Expr, Interval]) -> Interval:
    """A sum, with a position and its length taken together where they come with opposite signs."""
    terms = dict(form.terms)
    total = Interval(form.constant, form.constant)
    for first, second, interval in _PAIRS:
        one, two = word(first), word(second)
        n, m = terms.get(one, 0), terms.get(two, 0)
        if n * m < 0:
            together = min(abs(n), abs(m)) * (1 if n > 0 else -1)
            total = _add(total, _multiply(interval, Interval(together, together)))
            terms[one], terms[two] = n - together, m + together
    for term, factor in terms.items():
        own = known.get(term) or _WORDS.get(str(term.value), ANY_INT)
        total = _add(total, _multiply(own, Interval(factor, factor)))
    return total


# Arithmetic common to both. An infinite end of an INT means "not bounded", so inf * 0 is 0 there.


def _times(x: Number, y: Number) -> Number:
    return 0 if x == 0 or y == 0 else x * y


def _span(ends: Iterable[Number]) -> Interval:
    values = list(ends)
    return Interval(min(values), max(values))


def _add(x: Interval, y: Interval) -> Interval:
    return Interval(x.lo + y.lo, x.hi + y.hi)


def _subtract(x: Interval, y: Interval) -> Interval:
    return Interval(x.lo - y.hi, x.hi - y.lo)


def _multiply(x: Interval, y: Interval) -> Interval:
    return _span(_times(a, b) for a in (x.lo, x.hi) for b in (y.lo, y.hi))


def _negate(x: Interval) -> Interval:
    return Interval(-x.hi, -x.lo, x.may_nan)


def _abs(x: Interval) -> Interval:
    if x.lo >= 0:
        return x
    return Interval(0 if x.hi >= 0 else -x.hi, max(-x.lo, x.hi), x.may_nan)


def _min(x: Interval, y: Interval) -> Interval:
    return Interval(min(x.lo, y.lo), min(x.hi, y.hi))


def _max(x: Interval, y: Interval) -> Interval:
    return Interval(max(x.lo, y.lo), max(x.hi, y.hi))


# Rounding


def _as_float32(x: Interval) -> Interval:
    """The float32 numbers that a result within ``x`` may be rounded to."""
    return Interval(_outward(x.lo, -INF), _outward(x.hi, INF), x.may_nan)


def _outward(end: Number, direction: float) -> float:
    end = float(end)
    if math.isinf(end):
        return end
    if 0 < abs(end) < _FLOAT32_TINY:
        if (end > 0) != (direction > 0):
            return 0.0
        return math.copysign(_FLOAT32_TINY, end)
    rounded = to_float32(end)
    if rounded == end:
        return rounded
    if (rounded < end) == (direction < 0):
        return rounded
    # One float32 step outward; nextafter in float64 is too short a step, so widen and round again.
    return to_float32(end + math.copysign(abs(end) * 2.0**-23, direction))


# Integers


def _floor_divide(x: Interval, y: Interval) -> Interval:
    results: list[Number] = [0] if y.lo <= 0 <= y.hi else []  # x // 0 is 0
    for lo, hi in ((max(y.lo, 1), y.hi), (y.lo, min(y.hi, -1))):
        if lo <= hi:
            results += [_quotient(a, b) for a in (x.lo, x.hi) for b in (lo, hi)]
    return _span(results)


def _quotient(x: Number, y: Number) -> Number:
    if isinstance(x, int) and isinstance(y, int):
        return x // y
    if math.isinf(x):  # an infinite divisor is then taken as 1, which bounds all others
        return x if y > 0 else -x
    return 0 if x == 0 or (x > 0) == (y > 0) else -1


def _modulo(x: Interval, y: Interval) -> Interval:
    result = Interval(0, 0) if y.lo <= 0 <= y.hi else None
    if y.hi > 0:
        positive = Interval(0, y.hi - 1)
        if x.lo >= 0:
            positive = Interval(0, min(x.hi, y.hi - 1))
            if x.hi < y.lo:
                positive = x
        result = positive.hull(result or positive)
    if y.lo < 0:
        negative = Interval(y.lo + 1, 0)
        result = negative.hull(result or negative)
    assert result is not None
    return result


# ADD and SUB (see _of_sums) may wrap too; the rest give an operand, or less.
_MAY_WRAP = {Op.MUL, Op.NEG, Op.ABS, Op.FLOORDIV}

_INTS: dict[Op, Callable[..., Interval]] = {
    Op.MUL: _multiply,
    Op.NEG: _negate,
    Op.ABS: _abs,
    Op.MIN: _min,
    Op.MAX: _max,
    Op.CLAMP: lambda x, low, high: _min(_max(x, low), high),
    Op.FLOORDIV: _floor_divide,
    Op.MOD: _modulo,
    Op.TO_FLOAT: _as_float32,
}


# Floats


def _float_add(x: Interval, y: Interval) -> Interval:
    clash = (x.hi == INF and y.lo == -INF) or (x.lo == -INF and y.hi == INF)
    if clash:
        return ANY_FLOAT
    return Interval(x.lo + y.lo, x.hi + y.hi, x.may_nan or y.may_nan)


def _float_multiply(x: Interval, y: Interval) -> Interval:
    may_nan = x.may_nan or y.may_nan or _zero_times_inf(x, y) or _zero_times_inf(y, x)
    product = _multiply(x, y)
    return Interval(product.lo, product.hi, may_nan)


def _zero_times_inf(x: Interval, y: Interval) -> bool:
    return x.lo <= 0 <= x.hi and (y.lo == -INF or y.hi == INF)


def _divide(x: Interval, y: Interval) -> Interval:
    if y.lo <= 0 <= y.hi:
        return ANY_FLOAT  # either infinity, and 0 / 0
    infinite = (x.lo == -INF or x.hi == INF) and (y.lo == -INF or y.hi == INF)
    if infinite:
        return ANY_FLOAT
    ends = [a / b for a in map(float, (x.lo, x.hi)) for b in map(float, (y.lo, y.hi))]
    result = _span(ends)
    return Interval(_nudged(result.lo, -_SLACK), _nudged(result.hi, _SLACK), x.may_nan or y.may_nan)


_SLACK = 2.0**-18  # relative error granted to a fast division, exp, log, sqrt or the like


def _rising(f: Callable[[float], float]) -> Callable[[Interval], Interval]:
    """A rising function, its values widened by what a fast version may be off."""

    def apply(x: Interval) -> Interval:
        lo, hi = f(float(x.lo)), f(float(x.hi))
        return Interval(_nudged(lo, -_SLACK), _nudged(hi, _SLACK), x.may_nan)

    return apply


def _nudged(end: float, slack: float) -> float:
    return end if math.isinf(end) else end + abs(end) * slack


def _exp(x: float) -> float:
    return INF if x > 700 else math.exp(x)


def _log(x: Interval) -> Interval:
    if x.hi < 0:
        return ANY_FLOAT
    within = Interval(max(x.lo, 0.0), x.hi, x.may_nan or x.lo < 0)
    result = _rising(lambda v: math.log(v) if v > 0 else -INF)(within)
    # Near 1 the relative error of log grows without bound; its absolute error does not.
    return Interval(result.lo - _SLACK, result.hi + _SLACK, result.may_nan)


def _sqrt(x: Interval) -> Interval:
    if x.hi < 0:
        return ANY_FLOAT
    return _rising(math.sqrt)(Interval(max(x.lo, 0.0), x.hi, x.may_nan or x.lo < 0))


def _rsqrt(x: Interval) -> Interval:
    root = _sqrt(x)
    if root == ANY_FLOAT:
        return root
    lo, hi = float(root.lo), float(root.hi)
    return Interval(0.0 if hi == INF else 1 / hi if hi else INF, INF if lo <= 0 else 1 / lo, root.may_nan)


def _within_one(x: Interval, lowest: float) -> Interval:
    return Interval(lowest, 1.0, x.may_nan)


def _tanh(x: Interval) -> Interval:
    # An approximate tanh is off by 2^-11, but never beyond 1.
    lo, hi = math.tanh(x.lo), math.tanh(x.hi)
    return Interval(max(-1.0, lo - 2.0**-10 * abs(lo)), min(1.0, hi + 2.0**-10 * abs(hi)), x.may_nan)


def _wave(x: Interval) -> Interval:
    return Interval(-1.0, 1.0, x.may_nan or x.lo == -INF or x.hi == INF)


def _floor(x: Interval) -> Interval:
    lo, hi = (e if math.isinf(e) else float(math.floor(e)) for e in (x.lo, x.hi))
    return Interval(lo, hi, x.may_nan)


def _to_int(x: Interval) -> Interval:
    lo, hi = (int(max(_INT32.lo, min(_INT32.hi, e))) for e in (x.lo, x.hi))
    result = Interval(lo, hi)
    return result.hull(Interval(0, 0)) if x.may_nan else result


def _float_extreme(pick: Callable[[Interval, Interval], Interval]) -> Callable[..., Interval]:
    """``min`` and ``max``: NaN may win or lose, depending on who computes."""

    def apply(x: Interval, y: Interval) -> Interval:
        result = pick(x, y)
        if x.may_nan:
            result = result.hull(y)
        if y.may_nan:
            result = result.hull(x)
        return Interval(result.lo, result.hi, x.may_nan or y.may_nan)

    return apply


_float_min, _float_max = _float_extreme(_min), _float_extreme(_max)

_FLOATS: dict[Op, Callable[..., Interval]] = {
    Op.ADD: _float_add,
    Op.SUB: lambda x, y: _float_add(x, _negate(y)),
    Op.MUL: _float_multiply,
    Op.DIV: _divide,
    Op.NEG: _negate,
    Op.ABS: _abs,
    Op.MIN: _float_min,
    Op.MAX: _float_max,
    Op.CLAMP: lambda x, low, high: _float_min(_float_max(x, low), high),
    Op.EXP: _rising(_exp),
    Op.LOG: _log,
    Op.SQRT: _sqrt,
    Op.RSQRT: _rsqrt,
    Op.TANH: _tanh,
    Op.SIGMOID: lambda x: _within_one(x, 0.0),
    Op.SIN: _wave,
    Op.COS: _wave,
    Op.FLOOR: _floor,
    Op.TO_INT: _to_int,
}


# Comparisons give 0 or 1; with NaN all but != are false.


def _less(x: Interval, y: Interval, *, equal: bool) -> Interval:
    always = x.hi <= y.lo if equal else x.hi < y.lo
    never = x.lo > y.hi if equal else x.lo >= y.hi
    may_nan = x.may_nan or y.may_nan
    return Interval(int(always and not may_nan), int(not never))


def _same(x: Interval, y: Interval) -> Interval:
    apart = x.hi < y.lo or y.hi < x.lo
    one = x.lo == x.hi == y.lo == y.hi and not (x.may_nan or y.may_nan)
    return Interval(int(one), int(not apart))


def _compare(op: Op, x: Interval, y: Interval) -> Interval:
    return _COMPARE[op](x, y)


_COMPARE: dict[Op, Callable[[Interval, Interval], Interval]] = {
    Op.LT: lambda x, y: _less(x, y, equal=False),
    Op.LE: lambda x, y: _less(x, y, equal=True),
    Op.EQ: _same,
    Op.NE: lambda x, y: Interval(1 - _same(x, y).hi, 1 - _same(x, y).lo),
}
