"""Arithmetic on constants, once, when the IR is built: ``2 * 64`` is 128 and ``sqrt(2.0)`` 1.4142...

Ints are exact and must fit int64, floats are doubles that must fit float32, and nothing here raises but
``FoldError``. Each op means what ``ir.nodes`` says, so folding a constant never changes a variant.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

from attngen.ir.nodes import Expr, Op, const, make
from attngen.ir.types import Scalar

MAX_INT = 2**63 - 1
MAX_FLOAT = 3.4028234663852886e38  # of float32
INT32 = (-(2**31), 2**31 - 1)


class FoldError(Exception):
    """A constant has no value; the text says why."""


def _floordiv(x: int, y: int) -> int:
    if y == 0:
        raise FoldError("the constant divisor is zero")
    return x // y


def _mod(x: int, y: int) -> int:
    if y == 0:
        raise FoldError("the constant divisor is zero")
    return x % y


def _div(x: float, y: float) -> float:
    if y == 0:
        raise FoldError("the constant divisor is zero")
    return x / y


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x)) if x >= 0 else math.exp(x) / (1 + math.exp(x))


def _floor(x: float) -> float:
    return float(math.floor(x)) if math.isfinite(x) else x


def _to_int(x: float) -> int:
    return int(min(max(x, INT32[0]), INT32[1]))


_TABLE: dict[Op, Callable[..., Any]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.NEG: lambda x: -x,
    Op.ABS: abs,
    Op.MIN: min,
    Op.MAX: max,
    Op.CLAMP: lambda x, low, high: min(max(x, low), high),
    Op.FLOORDIV: _floordiv,
    Op.MOD: _mod,
    Op.DIV: _div,
    Op.EXP: math.exp,
    Op.LOG: math.log,
    Op.SQRT: math.sqrt,
    Op.RSQRT: lambda x: _div(1.0, math.sqrt(x)),
    Op.TANH: math.tanh,
    Op.SIGMOID: _sigmoid,
    Op.SIN: math.sin,
    Op.COS: math.cos,
    Op.FLOOR: _floor,
    Op.LT: lambda x, y: x < y,
    Op.LE: lambda x, y: x <= y,
    Op.EQ: lambda x, y: x == y,
    Op.NE: lambda x, y: x != y,
    Op.AND: lambda x, y: x and y,
    Op.OR: lambda x, y: x or y,
    Op.NOT: lambda x: not x,
    Op.WHERE: lambda c, x, y: x if c else y,
    Op.TO_FLOAT: float,
    Op.TO_INT: _to_int,
}


def folded(op: Op, *args: Expr) -> Expr:
    """``make(op, *args)``, or its value where every operand is constant. Raises FoldError.

    An int divisor that is the constant 0 is an error under any dividend.
    """
    if op in (Op.FLOORDIV, Op.MOD) and args[1].op is Op.CONST and args[1].value == 0:
        raise FoldError("the constant divisor is zero")
    if any(a.op is not Op.CONST for a in args):
        return make(op, *args)
    return const(check(apply(op, [a.value for a in args])))  # type: ignore[misc]


def apply(op: Op, values: Sequence[Scalar]) -> Scalar:
    """The op's value. Raises FoldError where it has none."""
    try:
        value: Scalar = _TABLE[op](*values)
    except OverflowError:
        raise FoldError("the constant is too large for float32") from None
    except ValueError:
        shown = ", ".join(repr(v) for v in values)
        raise FoldError(f"{op.value}({shown}) is not a finite number") from None
    if isinstance(value, float) and math.isinf(value) and not any(map(_is_infinite, values)):
        raise FoldError("the constant is too large for float32")
    return value


def _is_infinite(value: Scalar) -> bool:
    return isinstance(value, float) and math.isinf(value)


def check(value: Scalar) -> Scalar:
    """``value``, which must fit what kernels compute with: int64, or float32 (or an infinity)."""
    if isinstance(value, bool):
        return value
    if isinstance(value, int):
        if abs(value) > MAX_INT:
            raise FoldError("the constant does not fit int64")
    elif math.isnan(value):
        raise FoldError("the constant is not a number")
    elif abs(value) > MAX_FLOAT and not math.isinf(value):
        raise FoldError("the constant is too large for float32")
    return value
