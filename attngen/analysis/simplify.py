"""Rewriting to less: every rule keeps the value, NaN, infinities and signed zeros included.

    (x + 2) * 1 - 2        ->  x           integers
    not (pos < k) and True ->  k <= pos
    score * 1.0 + (-y)     ->  score - y   but  score * 0.0  and  score - score  stay (inf, NaN)

Rules are a table: one row an op, and each rule's docstring is its example. ``simple`` makes a node from
simplified operands and applies the rules to it, so what a rule builds with ``simple`` is simple again and
one walk, operands before users, is enough. Ints are what 64 bits compute: sums and products may be regrouped,
since wrapping around commutes with them, but a comparison's sides move only where neither may wrap.

Constants fold where the result cannot depend on where it is computed: integers exactly, unless they pass
int64; floats only where operands and exact result are all float32 numbers (the reference computes in
float64, a kernel in float32); operands of a comparison, ``floor`` and ``int()`` are float32 by definition.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

from attngen.analysis.float32 import is_float32, to_float32
from attngen.analysis.interval import fits_int64, intervals
from attngen.analysis.walk import fresh
from attngen.ir.nodes import FALSE, TRUE, AttentionIR, Expr, Op, const, make, remake
from attngen.ir.types import Scalar, Type

Rule = Callable[[Expr], Expr | None]

_INT32 = -(2**31), 2**31 - 1
_INT64 = -(2**63), 2**63 - 1
_ZERO, _ONE = const(0), const(1)


def simplify(root: Expr) -> Expr:
    """An expression of the same value, made of fewer or cheaper nodes where a rule applies."""
    known: dict[Expr, Expr] = {}
    return _simplify(root, known)


def simplify_ir(ir: AttentionIR) -> AttentionIR:
    """``ir`` with every clause simplified; names follow their expressions."""
    known: dict[Expr, Expr] = {}
    return replace(
        ir,
        scale=_simplify(ir.scale, known),
        score=tuple(_simplify(e, known) for e in ir.score),
        mask=_simplify(ir.mask, known),
        bias=ir.bias and _simplify(ir.bias, known),
        weight=ir.weight and _simplify(ir.weight, known),
        sink=ir.sink and _simplify(ir.sink, known),
        dropout=ir.dropout and _simplify(ir.dropout, known),
        names={known.get(node, node): name for node, name in ir.names.items()},
    )


def simple(op: Op, *args: Expr) -> Expr:
    """The simplified node ``op(*args)``; the operands are simplified already."""
    return _apply_rules(make(op, *args))


def _simplify(root: Expr, known: dict[Expr, Expr]) -> Expr:
    for node in fresh(root, known):
        known[node] = _apply_rules(remake(node, tuple(known[a] for a in node.args)))
    return known[root]


def _apply_rules(node: Expr) -> Expr:
    for rule in RULES.get(node.op, ()):
        result = rule(node)
        if result is not None:
            return result
    return node


# Constants


def fold(node: Expr) -> Expr | None:
    """2 + 3 -> 5; 0.5 * 4.0 -> 2.0; 0.1 + 0.2 stays."""
    if any(arg.op is not Op.CONST for arg in node.args):
        return None
    values = [arg.value for arg in node.args]
    kind = node.args[-1].type
    result: Scalar | None
    if kind is Type.INT:
        result = _fold_ints(node.op, [int(v or 0) for v in values])
    elif kind is Type.FLOAT:
        result = _fold_floats(node.op, [float(v or 0) if v else _zero(v) for v in values])
    else:
        result = _fold_bools(node.op, [bool(v) for v in values])
    return None if result is None else const(result)


def _zero(value: Scalar | str | None) -> float:
    return float(value) if isinstance(value, float) else 0.0  # keeps -0.0


def _fold_ints(op: Op, values: list[int]) -> Scalar | None:
    if op is Op.TO_FLOAT:
        result = _float(values[0])
        return result if result is not None and result == values[0] and is_float32(result) else None
    if op in _COMPARE:
        return _COMPARE[op](values[0], values[1])
    if op not in _INT_FOLD:
        return None
    number = _INT_FOLD[op](*values)
    return number if _INT64[0] <= number <= _INT64[1] else None


def _fold_floats(op: Op, values: list[float]) -> Scalar | None:
    if op in _COMPARE:
        return _COMPARE[op](to_float32(values[0]), to_float32(values[1]))
    if op is Op.TO_INT:
        return _to_int(to_float32(values[0]))
    if op is Op.FLOOR:
        rounded = to_float32(values[0])
        return float(math.floor(rounded)) if math.isfinite(rounded) and rounded else rounded
    if not all(is_float32(v) and math.isfinite(v) for v in values):
        return None
    result = _exact(op, values)
    return result if result is not None and is_float32(result) else None


def _exact(op: Op, values: list[float]) -> float | None:
    """The result in float64 where it is the exact one."""
    if op in (Op.NEG, Op.ABS):
        return -values[0] if op is Op.NEG else abs(values[0])
    if op is Op.SQRT and values[0] > 0:
        root = math.sqrt(values[0])
        return root if Fraction(root) ** 2 == Fraction(values[0]) else None
    if op not in (Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MIN, Op.MAX) or (op is Op.DIV and values[1] == 0):
        return None
    x, y = values
    if op in (Op.MIN, Op.MAX):  # of 0.0 and -0.0, which one is open
        return None if x == y == 0 else min(x, y) if op is Op.MIN else max(x, y)
    a, b = Fraction(x), Fraction(y)
    exact, result = {
        Op.ADD: lambda: (a + b, x + y),
        Op.SUB: lambda: (a - b, x - y),
        Op.MUL: lambda: (a * b, x * y),
        Op.DIV: lambda: (a / b, x / y),
    }[op]()
    return result if math.isfinite(result) and Fraction(result) == exact else None


def _fold_bools(op: Op, values: list[bool]) -> bool | None:
    if op is Op.NOT:
        return not values[0]
    if op in (Op.EQ, Op.NE):
        return (values[0] == values[1]) is (op is Op.EQ)
    return None


def _clamp(x: int, low: int, high: int) -> int:
    return min(max(x, low), high)


_INT_FOLD: dict[Op, Callable[..., int]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.NEG: lambda x: -x,
    Op.ABS: abs,
    Op.MIN: min,
    Op.MAX: max,
    Op.CLAMP: _clamp,
    Op.FLOORDIV: lambda x, y: x // y if y else 0,
    Op.MOD: lambda x, y: x % y if y else 0,
}
_COMPARE: dict[Op, Callable[[float, float], bool]] = {
    Op.LT: lambda x, y: x < y,
    Op.LE: lambda x, y: x <= y,
    Op.EQ: lambda x, y: x == y,
    Op.NE: lambda x, y: x != y,
}


def _float(number: int) -> float | None:
    try:
        return float(number)
    except OverflowError:
        return None


def _to_int(x: float) -> int:
    if math.isnan(x):
        return 0
    return int(max(_INT32[0], min(_INT32[1], x)))


def _constant(node: Expr) -> Scalar | None:
    return node.value if node.op is Op.CONST and not isinstance(node.value, str) else None


def _is(node: Expr, value: Scalar) -> bool:
    return node is const(value)


def _negated(node: Expr) -> Expr | None:
    return node.args[0] if node.op is Op.NEG else None


def _parts(node: Expr) -> tuple[Expr, int]:
    """``x + 3`` as (x, 3), ``x - 3`` as (x, -3), another integer as (itself, 0)."""
    if node.op in (Op.ADD, Op.SUB) and isinstance(node.args[1].value, int) and node.args[1].op is Op.CONST:
        value = int(node.args[1].value)
        return node.args[0], value if node.op is Op.ADD else -value
    return node, 0


# Arithmetic


def add_nothing(node: Expr) -> Expr | None:
    """x + 0 -> x, for floats x + -0.0 -> x (x + 0.0 turns -0.0 into 0.0 and stays)."""
    nothing: Scalar = 0 if node.type is Type.INT else -0.0
    for this, other in (node.args, node.args[::-1]):
        if _is(other, nothing):
            return this
    return None


def add_negated(node: Expr) -> Expr | None:
    """x + -y -> x - y; -x + y -> y - x."""
    for this, other in (node.args, node.args[::-1]):
        inner = _negated(other)
        if inner is not None:
            return simple(Op.SUB, this, inner)
    return None


def add_constants(node: Expr) -> Expr | None:
    """x + 2 + 3 -> x + 5; (x + 2) - (y + 3) -> x - y - 1; 3 + x -> x + 3: integers."""
    if node.type is not Type.INT:
        return None
    left, right = node.args
    sign = 1 if node.op is Op.ADD else -1
    if left.op is Op.CONST and right.op is not Op.CONST and node.op is Op.ADD:
        return simple(Op.ADD, right, left)
    (x, first), (y, second) = _parts(left), _parts(right)
    if right.op is Op.CONST:
        if not first and int(right.value or 0) >= 0:
            return None
        second = int(right.value or 0)
        total = first + sign * second
        base = x
    elif first or second:
        total = first + sign * second
        base = simple(node.op, x, y)
    else:
        return None
    if not _INT64[0] < total <= _INT64[1]:
        return None
    if total == 0:
        return base
    if base.op is Op.CONST or _parts(base)[1]:
        return simple(Op.ADD, base, const(total))
    return make(Op.ADD if total > 0 else Op.SUB, base, const(abs(total)))


def subtract_nothing(node: Expr) -> Expr | None:
    """x - 0 -> x; 0 - x -> -x for integers; x - 0.0 -> x."""
    if node.type is Type.INT and _is(node.args[0], 0):
        return simple(Op.NEG, node.args[1])
    nothing: Scalar = 0 if node.type is Type.INT else 0.0
    return node.args[0] if _is(node.args[1], nothing) else None


def subtract_itself(node: Expr) -> Expr | None:
    """x - x -> 0; (x + y) - y -> x: integers (a float may be inf or NaN)."""
    if node.type is not Type.INT:
        return None
    left, right = node.args
    if left is right:
        return _ZERO
    if left.op is Op.ADD and right in left.args:
        return left.args[1] if left.args[0] is right else left.args[0]
    return None


def subtract_negated(node: Expr) -> Expr | None:
    """x - -y -> x + y."""
    inner = _negated(node.args[1])
    return None if inner is None else simple(Op.ADD, node.args[0], inner)


def multiply_by_unit(node: Expr) -> Expr | None:
    """x * 1 -> x; x * -1 -> -x; x * 0 -> 0 for integers (0.0 * inf is NaN)."""
    for this, other in (node.args, node.args[::-1]):
        value = _constant(other)
        if value == 1:
            return this
        if value == -1:
            return simple(Op.NEG, this)
        if value == 0 and node.type is Type.INT:
            return _ZERO
    return None


def multiply_constants(node: Expr) -> Expr | None:
    """2 * (3 * x) -> x * 6; 2 * x -> x * 2: integers."""
    if node.type is not Type.INT:
        return None
    left, right = node.args
    if left.op is Op.CONST and right.op is not Op.CONST:
        return simple(Op.MUL, right, left)
    if right.op is Op.CONST and left.op is Op.MUL and left.args[1].op is Op.CONST:
        factor = fold(make(Op.MUL, left.args[1], right))
        return simple(Op.MUL, left.args[0], factor) if factor else None
    return None


def multiply_negated(node: Expr) -> Expr | None:
    """-x * -y -> x * y; -x / -y -> x / y."""
    left, right = map(_negated, node.args)
    return simple(node.op, left, right) if left and right else None


def divide_by_unit(node: Expr) -> Expr | None:
    """x / 1.0 -> x; x / -1.0 -> -x."""
    value = _constant(node.args[1])
    if value == 1:
        return node.args[0]
    return simple(Op.NEG, node.args[0]) if value == -1 else None


def floor_divide_by_one(node: Expr) -> Expr | None:
    """x // 1 -> x; 0 // x -> 0."""
    return node.args[0] if _is(node.args[1], 1) or _is(node.args[0], 0) else None


def floor_divide_twice(node: Expr) -> Expr | None:
    """x // 4 // 8 -> x // 32, by positive constants."""
    inner, outer = node.args
    if inner.op is Op.FLOORDIV and all(_is_positive(n) for n in (inner.args[1], outer)):
        divisor = fold(make(Op.MUL, inner.args[1], outer))
        return simple(Op.FLOORDIV, inner.args[0], divisor) if divisor else None
    return None


def _is_positive(node: Expr) -> bool:
    value = _constant(node)
    return value is not None and value > 0


def modulo_one(node: Expr) -> Expr | None:
    """x % 1 -> 0; 0 % x -> 0."""
    return _ZERO if _is(node.args[1], 1) or _is(node.args[0], 0) else None


def modulo_twice(node: Expr) -> Expr | None:
    """x % n % n -> x % n."""
    inner, n = node.args
    return inner if inner.op is Op.MOD and inner.args[1] is n else None


def negate(node: Expr) -> Expr | None:
    """--x -> x; -(x - y) -> y - x for integers (for floats x == y gives another zero)."""
    inner = node.args[0]
    if inner.op is Op.NEG:
        return inner.args[0]
    if inner.op is Op.SUB and node.type is Type.INT:
        return simple(Op.SUB, inner.args[1], inner.args[0])
    return None


def absolute(node: Expr) -> Expr | None:
    """abs(-x) -> abs(x); abs(abs(x)) -> abs(x)."""
    inner = node.args[0]
    if inner.op is Op.NEG:
        return simple(Op.ABS, inner.args[0])
    return inner if inner.op is Op.ABS else None


def extreme_of_same(node: Expr) -> Expr | None:
    """min(x, x) -> x; max(x, max(x, y)) -> max(x, y)."""
    left, right = node.args
    if left is right:
        return left
    for this, other in ((left, right), (right, left)):
        if this.op is node.op and other in this.args:
            return this
    return None


def extreme_of_constants(node: Expr) -> Expr | None:
    """min(min(x, 3), 5) -> min(x, 3): integers, the constant last."""
    if node.type is not Type.INT:
        return None
    left, right = node.args
    if left.op is Op.CONST and right.op is not Op.CONST:
        return simple(node.op, right, left)
    if right.op is Op.CONST and left.op is node.op and left.args[1].op is Op.CONST:
        folded = fold(make(node.op, left.args[1], right))
        return simple(node.op, left.args[0], folded) if folded else None
    return None


def extreme_of_dual(node: Expr) -> Expr | None:
    """max(x, min(x, y)) -> x: integers (a float y may be NaN)."""
    if node.type is not Type.INT:
        return None
    dual = Op.MIN if node.op is Op.MAX else Op.MAX
    for this, other in (node.args, node.args[::-1]):
        if other.op is dual and this in other.args:
            return this
    return None


def extreme_of_bounded(node: Expr) -> Expr | None:
    """max(abs(x), 0) -> abs(x); min(h, 2**30) -> h: integers that the constant cannot beat."""
    x, limit = node.args
    if limit.op is not Op.CONST or limit.type is not Type.INT:
        return None
    low, high = _least_and_greatest(x)
    number = int(limit.value or 0)
    return x if (low >= number if node.op is Op.MAX else high <= number) else None


def clamp_one_side(node: Expr) -> Expr | None:
    """clamp(abs(x), 0, 9) -> min(abs(x), 9); clamp(x % 8, -1, n) -> min(x % 8, n): integers."""
    x, low, high = node.args
    if node.type is not Type.INT:
        return None
    least, greatest = _least_and_greatest(x)
    if low.op is Op.CONST and least >= int(low.value or 0):
        return simple(Op.MIN, x, high)
    if high.op is Op.CONST and max(greatest, _least_and_greatest(low)[1]) <= int(high.value or 0):
        return simple(Op.MAX, x, low)
    return None


def _least_and_greatest(x: Expr) -> tuple[float, float]:
    """Between what an INT lies, whatever the call; infinities where it is too much to look into."""
    if not _is_small(x):
        return -math.inf, math.inf
    known = intervals(x, dtypes={})[x]
    return known.lo, known.hi


def whole(node: Expr) -> Expr | None:
    """floor(floor(x)) -> floor(x)."""
    return node.args[0] if node.args[0].op is Op.FLOOR else None


# Comparisons and logic


def compare_itself(node: Expr) -> Expr | None:
    """n < n -> False; n == n -> True: integers and bools (NaN differs from itself)."""
    left, right = node.args
    if left is right and left.type is not Type.FLOAT:
        return const(node.op in (Op.LE, Op.EQ))
    return None


def compare_with_bool(node: Expr) -> Expr | None:
    """p == True -> p; p != True -> not p."""
    for this, other in (node.args, node.args[::-1]):
        if other in (TRUE, FALSE):
            return this if (other is TRUE) is (node.op is Op.EQ) else simple(Op.NOT, this)
    return None


def compare_shifted(node: Expr) -> Expr | None:
    """q + 1 < k + 3 -> q < k + 2; 0 <= q - 2 -> 2 <= q; n + 1 < n + 3 -> True: integers that do not wrap."""
    left, right = node.args
    if left.type is not Type.INT:
        return None
    (x, first), (y, second) = _parts(left), _parts(right)
    if x is y:
        moved = fold(make(node.op, const(first), const(second)))
    elif x.op is Op.CONST or y.op is Op.CONST:
        moved = _compare_with_constant(node.op, x, first, y, second)
    elif first and second and _INT64[0] <= second - first <= _INT64[1]:
        moved = simple(node.op, x, simple(Op.ADD, y, const(second - first)))
    else:
        return None
    if moved is None or node.op in (Op.EQ, Op.NE):  # equal sums stay equal, wrapped or not
        return moved
    return moved if _never_wrap(*node.args, *moved.args) else None


_MOST_NODES = 64  # of what is looked into


def _never_wrap(*sides: Expr) -> bool:
    """Whether 64 bits hold these ints whatever the call; inputs count as int64."""
    if not _is_small(*sides):
        return False
    known = intervals(*sides, dtypes={})
    return all(fits_int64(known[side]) for side in sides if side.type is Type.INT)


def _is_small(*roots: Expr) -> bool:
    seen: set[Expr] = set()
    stack = list(roots)
    while stack and len(seen) <= _MOST_NODES:
        node = stack.pop()
        if node not in seen:
            seen.add(node)
            stack += node.args
    return not stack


def _compare_with_constant(op: Op, x: Expr, first: int, y: Expr, second: int) -> Expr | None:
    if (x.op is Op.CONST and not second) or (y.op is Op.CONST and not first):
        return None
    if x.op is Op.CONST:
        moved = int(x.value or 0) + first - second
        return simple(op, const(moved), y) if _INT64[0] <= moved <= _INT64[1] else None
    moved = int(y.value or 0) + second - first
    return simple(op, x, const(moved)) if _INT64[0] <= moved <= _INT64[1] else None


def negate_condition(node: Expr) -> Expr | None:
    """not not p -> p; not (n < m) -> m <= n for integers; not (x == y) -> x != y."""
    inner = node.args[0]
    if inner.op is Op.NOT:
        return inner.args[0]
    if inner.op in (Op.LT, Op.LE) and inner.args[0].type is Type.INT:
        return simple(Op.LE if inner.op is Op.LT else Op.LT, inner.args[1], inner.args[0])
    if inner.op in (Op.EQ, Op.NE):  # IEEE: NaN != NaN, so these are opposites for floats too
        return simple(Op.NE if inner.op is Op.EQ else Op.EQ, *inner.args)
    return None


def join_conditions(node: Expr) -> Expr | None:
    """p and True -> p; p and False -> False; p and p -> p; p and not p -> False; p and (p or q) -> p."""
    neutral, final = (TRUE, FALSE) if node.op is Op.AND else (FALSE, TRUE)
    dual = Op.OR if node.op is Op.AND else Op.AND
    for this, other in (node.args, node.args[::-1]):
        if other is neutral or this is other:
            return this
        if other is final or (other.op is Op.NOT and other.args[0] is this):
            return final
        if other.op is dual and this in other.args:
            return this
        if other.op is node.op and this in other.args:
            return other
    return None


def choose(node: Expr) -> Expr | None:
    """where(True, x, y) -> x; where(p, x, x) -> x; where(not p, x, y) -> where(p, y, x)."""
    condition, chosen, other = node.args
    if condition.op is Op.CONST:
        return chosen if condition is TRUE else other
    if chosen is other:
        return chosen
    if condition.op is Op.NOT:
        return simple(Op.WHERE, condition.args[0], other, chosen)
    return None


def choose_twice(node: Expr) -> Expr | None:
    """where(p, x, where(p, y, z)) -> where(p, x, z); where(p, where(p, x, y), z) -> where(p, x, z)."""
    condition, chosen, other = node.args
    if chosen.op is Op.WHERE and chosen.args[0] is condition:
        return simple(Op.WHERE, condition, chosen.args[1], other)
    if other.op is Op.WHERE and other.args[0] is condition:
        return simple(Op.WHERE, condition, chosen, other.args[2])
    return None


def choose_the_same(node: Expr) -> Expr | None:
    """where(p, x, where(q, x, y)) -> where(p or q, x, y)."""
    condition, chosen, other = node.args
    if other.op is Op.WHERE and other.args[1] is chosen:
        return simple(Op.WHERE, simple(Op.OR, condition, other.args[0]), chosen, other.args[2])
    return None


def choose_bool(node: Expr) -> Expr | None:
    """where(p, True, q) -> p or q; where(p, q, False) -> p and q; where(p, False, True) -> not p."""
    condition, chosen, other = node.args
    if chosen is TRUE:
        return simple(Op.OR, condition, other)
    if other is FALSE:
        return simple(Op.AND, condition, chosen)
    if chosen is FALSE:
        return simple(Op.AND, simple(Op.NOT, condition), other)
    return simple(Op.OR, simple(Op.NOT, condition), chosen) if other is TRUE else None


_COMPARISON = (fold, compare_itself, compare_shifted)
_EXTREME = (fold, extreme_of_same, extreme_of_dual, extreme_of_constants, extreme_of_bounded)

RULES: dict[Op, tuple[Rule, ...]] = {
    Op.ADD: (fold, add_nothing, add_negated, add_constants),
    Op.SUB: (fold, subtract_nothing, subtract_itself, subtract_negated, add_constants),
    Op.MUL: (fold, multiply_by_unit, multiply_negated, multiply_constants),
    Op.DIV: (fold, divide_by_unit, multiply_negated),
    Op.NEG: (fold, negate),
    Op.ABS: (fold, absolute),
    Op.MIN: _EXTREME,
    Op.MAX: _EXTREME,
    Op.CLAMP: (fold, clamp_one_side),
    Op.FLOORDIV: (fold, floor_divide_by_one, floor_divide_twice),
    Op.MOD: (fold, modulo_one, modulo_twice),
    Op.SQRT: (fold,),
    Op.FLOOR: (fold, whole),
    Op.TO_FLOAT: (fold,),
    Op.TO_INT: (fold,),
    Op.LT: _COMPARISON,
    Op.LE: _COMPARISON,
    Op.EQ: (*_COMPARISON, compare_with_bool),
    Op.NE: (*_COMPARISON, compare_with_bool),
    Op.NOT: (fold, negate_condition),
    Op.AND: (fold, join_conditions),
    Op.OR: (fold, join_conditions),
    Op.WHERE: (choose, choose_twice, choose_the_same, choose_bool),
}
