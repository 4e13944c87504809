"""What each operator and built-in function of the language means in IR nodes: conversions and lowerings.

    score / 2         →  (/ score 2.0)                   an int meets a float
    dist ** 3         →  (* (* dist dist) dist)          a power of a small constant
    pos % 1.5         →  (- x (* (floor (/ x 1.5)) 1.5)) with x = float(pos)
    log(sigmoid(x))   →  (- (min x 0.0) (log (+ 1.0 (exp (- (abs x))))))  finite where sigmoid(x) is 0

Each function takes finished operands and raises ``Mistake`` or ``fold.FoldError``; places are build.py's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import reduce

from attngen.ir.fold import FoldError, check, folded
from attngen.ir.nodes import Expr, Op, const, make
from attngen.ir.types import Type

MAX_POWER = 16


class Mistake(Exception):
    """An operand has the wrong type, or a call the wrong number of arguments."""

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


_NUMBER_HINT = "float(x) makes a bool a number; where(x, a, b) chooses by it"


def number(x: Expr, what: str) -> Expr:
    """``x``, which must be an int or a float."""
    if x.type is Type.BOOL:
        raise Mistake(f"{what} takes numbers, not a bool", _NUMBER_HINT)
    return x


def truth(x: Expr, what: str) -> Expr:
    """``x``, which must be a bool."""
    if x.type is not Type.BOOL:
        raise Mistake(f"{what} takes a bool, not {_article(x.type)}", "compare it, as in 'x != 0'")
    return x


def _article(kind: Type) -> str:
    return f"an {kind.value}" if kind is Type.INT else f"a {kind.value}"


def as_float(x: Expr, what: str = "float") -> Expr:
    number(x, what)
    return folded(Op.TO_FLOAT, x) if x.type is Type.INT else x


def _alike(args: Sequence[Expr], what: str) -> list[Expr]:
    """Numbers of one type: floats as soon as one of them is."""
    for arg in args:
        number(arg, what)
    if any(a.type is Type.FLOAT for a in args):
        return [as_float(a) for a in args]
    return list(args)


def arithmetic(symbol: str, x: Expr, y: Expr) -> Expr:
    """``x symbol y`` for one of ``+ - * / // %``."""
    what = f"'{symbol}'"
    if symbol == "/":
        return folded(Op.DIV, as_float(x, what), as_float(y, what))
    x, y = _alike((x, y), what)
    if symbol in _PLAIN:
        return folded(_PLAIN[symbol], x, y)
    if x.type is Type.INT:
        return folded(Op.FLOORDIV if symbol == "//" else Op.MOD, x, y)
    quotient = folded(Op.FLOOR, folded(Op.DIV, x, y))
    return quotient if symbol == "//" else folded(Op.SUB, x, folded(Op.MUL, quotient, y))


_PLAIN = {"+": Op.ADD, "-": Op.SUB, "*": Op.MUL}


def power(x: Expr, y: Expr) -> Expr:
    """``x ** y`` for a small constant y, as products, a reciprocal or a square root."""
    number(x, "'**'")
    number(y, "'**'")
    if y.op is not Op.CONST:
        raise Mistake("the exponent of '**' must be a constant", "a ** b is exp(b * log(a)) for a > 0")
    exponent = y.value
    assert isinstance(exponent, int | float)
    if x.op is Op.CONST:
        return _constant_power(x, y)
    if exponent in (0.5, -0.5):
        return folded(Op.SQRT if exponent == 0.5 else Op.RSQRT, as_float(x))
    if isinstance(exponent, float):
        x = as_float(x)
    n = int(exponent) if float(exponent).is_integer() else MAX_POWER + 1
    if abs(n) > MAX_POWER:
        raise Mistake(f"the exponent of '**' is an int of at most {MAX_POWER}, 0.5 or -0.5, not {exponent}")
    if n < 0 and x.type is Type.INT:
        raise Mistake("an int has no negative power", "float(x) ** n is a float")
    if n == 0:
        return const(1) if x.type is Type.INT else const(1.0)
    product = _product(x, abs(n))
    return product if n > 0 else folded(Op.DIV, const(1.0), product)


def _product(x: Expr, n: int) -> Expr:
    if n == 1:
        return x
    half = _product(x, n // 2)
    square = folded(Op.MUL, half, half)
    return folded(Op.MUL, square, x) if n % 2 else square


def _constant_power(x: Expr, y: Expr) -> Expr:
    base, exponent = x.value, y.value
    assert isinstance(base, int | float) and isinstance(exponent, int | float)
    if isinstance(base, int) and isinstance(exponent, int):
        if exponent < 0:
            raise Mistake("an int has no negative power", f"{float(base)} ** {exponent} is a float")
        if abs(base) > 1 and exponent > 63:
            raise FoldError("the constant does not fit int64")
        # Of -1, 0 and 1 only the exponent's parity and its being 0 matter: keep Python's power small.
        return const(check(base ** (exponent if exponent < 64 else 2 + exponent % 2)))
    try:
        value = math.pow(base, exponent)
    except (OverflowError, ValueError):
        raise FoldError(f"{base} ** {exponent} is not a finite number") from None
    return const(check(value))


def compare(symbol: str, x: Expr, y: Expr) -> Expr:
    """``x symbol y`` for a comparison; '==' and '!=' compare bools too."""
    equality = symbol in ("==", "!=")
    if equality and x.type is Type.BOOL and y.type is Type.BOOL:
        return folded(Op.EQ if symbol == "==" else Op.NE, x, y)
    x, y = _alike((x, y), f"'{symbol}'")
    if symbol in (">", ">="):
        x, y = y, x
    return folded({"<": Op.LT, ">": Op.LT, "<=": Op.LE, ">=": Op.LE, "==": Op.EQ, "!=": Op.NE}[symbol], x, y)


def logic(symbol: str, x: Expr, y: Expr) -> Expr:
    """``x and y`` or ``x or y``."""
    what = f"'{symbol}'"
    return folded(Op.AND if symbol == "and" else Op.OR, truth(x, what), truth(y, what))


def unary(symbol: str, x: Expr) -> Expr:
    """``-x``, ``+x`` or ``not x``."""
    if symbol == "not":
        return folded(Op.NOT, truth(x, "'not'"))
    number(x, f"'{symbol}'")
    return folded(Op.NEG, x) if symbol == "-" else x


def choose(condition: Expr, x: Expr, y: Expr, what: str) -> Expr:
    """``x if condition else y``: the branches are two bools or two numbers."""
    if condition.type is not Type.BOOL:
        raise Mistake(
            f"the condition of {what} is a bool, not {_article(condition.type)}", "compare it, as in 'x != 0'"
        )
    if not (x.type is Type.BOOL and y.type is Type.BOOL):
        if Type.BOOL in (x.type, y.type):
            other = y.type if x.type is Type.BOOL else x.type
            raise Mistake(f"the branches of {what} are a bool and {_article(other)}", _NUMBER_HINT)
        x, y = _alike((x, y), what)
    return folded(Op.WHERE, condition, x, y)


# --- built-in functions --------------------------------------------------------------------------------


def _float_function(op: Op) -> Callable[..., Expr]:
    return lambda x: folded(op, as_float(x, f"'{op.value}'"))


def _log(x: Expr) -> Expr:
    """The logarithm; of a sigmoid, which float32 rounds to 0 from -104 on, in the form that stays finite."""
    x = as_float(x, "'log'")
    if x.op is not Op.SIGMOID:
        return folded(Op.LOG, x)
    (inner,) = x.args
    fading = folded(Op.EXP, folded(Op.NEG, folded(Op.ABS, inner)))
    rest = folded(Op.LOG, folded(Op.ADD, const(1.0), fading))
    return folded(Op.SUB, folded(Op.MIN, inner, const(0.0)), rest)


def _extreme(op: Op) -> Callable[..., Expr]:
    def fold_left(*args: Expr) -> Expr:
        return reduce(lambda x, y: folded(op, *_alike((x, y), f"'{op.value}'")), args)

    return fold_left


def _floor(x: Expr) -> Expr:
    return folded(Op.FLOOR, x) if number(x, "'floor'").type is Type.FLOAT else x


def _int(x: Expr) -> Expr:
    if x.type is Type.BOOL:
        return folded(Op.WHERE, x, const(1), const(0))
    return folded(Op.TO_INT, x) if x.type is Type.FLOAT else x


def _float(x: Expr) -> Expr:
    if x.type is Type.BOOL:
        return folded(Op.WHERE, x, const(1.0), const(0.0))
    return as_float(x)


def _clamp(x: Expr, low: Expr, high: Expr) -> Expr:
    return folded(Op.CLAMP, *_alike((x, low, high), "'clamp'"))


#: name -> (fewest arguments, most arguments or None, meaning)
BUILTINS: dict[str, tuple[int, int | None, Callable[..., Expr]]] = {
    "abs": (1, 1, lambda x: folded(Op.ABS, number(x, "'abs'"))),
    "min": (2, None, _extreme(Op.MIN)),
    "max": (2, None, _extreme(Op.MAX)),
    "clamp": (3, 3, _clamp),
    **{
        op.value: (1, 1, _float_function(op))
        for op in (Op.EXP, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS)
    },
    "log": (1, 1, _log),
    "floor": (1, 1, _floor),
    "where": (3, 3, lambda c, x, y: choose(c, x, y, "'where'")),
    "dot": (2, 2, lambda x, y: make(Op.DOT, x, y)),
    "int": (1, 1, _int),
    "float": (1, 1, _float),
}
