"""The slow, plain meaning of an IR expression: one score at a time, in Python.

Floats are float64 with IEEE results (no exceptions), ints exact, or in 64 bits where asked for; operands of
a comparison, ``floor`` and ``int()`` are rounded to float32 first. Written from the language's definition,
not from any compiled code.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from attngen.ir.nodes import BEYOND, SEARCHES, Expr, Op, postorder
from attngen.ir.types import Scalar, Type


@dataclass
class Env:
    """What an expression reads at one place. ``inputs`` are nested lists (a scalar input is a number).

    ``pos`` and ``h_kv`` follow from the other words where they are not given. With ``wraps`` an int is what
    64 bits compute, as in the kernels and in torch.
    """

    words: Mapping[str, int] = field(default_factory=dict)
    params: Mapping[str, Scalar] = field(default_factory=dict)
    sizes: Mapping[str, int] = field(default_factory=dict)
    inputs: Mapping[str, Any] = field(default_factory=dict)
    score: float = 0.0
    weight: float = 0.0
    wraps: bool = False

    def word(self, name: str) -> int:
        if name == "pos" and "pos" not in self.words:
            return self.words["q"] + self.words["k_len"] - self.words["q_len"]
        if name == "h_kv" and "h_kv" not in self.words:
            return self.words["h"] // (self.words["heads"] // self.words["kv_heads"])
        return self.words[name]


def evaluate(root: Expr, env: Env) -> Scalar:
    """The value of ``root``."""
    return values_of(root, env)[root]


def values_of(root: Expr, env: Env) -> dict[Expr, Scalar]:
    """The value of every node under ``root``."""
    return values_in(postorder(root), env)


def values_in(order: Sequence[Expr], env: Env) -> dict[Expr, Scalar]:
    """The value of each of these nodes, operands first."""
    values: dict[Expr, Scalar] = {}
    for node in order:
        values[node] = _value(node, [values[a] for a in node.args], env)
        if env.wraps and node.type is Type.INT:
            values[node] = (int(values[node]) + 2**63) % 2**64 - 2**63
    return values


def _value(node: Expr, args: list[Scalar], env: Env) -> Scalar:
    op, name = node.op, str(node.value)
    if op is Op.CONST:
        assert node.value is not None and not isinstance(node.value, str)
        return node.value
    if op is Op.WORD:
        return env.word(name)
    if op is Op.SIZE:
        return env.sizes[name]
    if op is Op.PARAM:
        return env.params[name]
    if op is Op.SCORE:
        return env.score
    if op is Op.WEIGHT:
        return env.weight
    if op is Op.LOAD:
        return _nearest(env.inputs[name], [int(a) for a in args])
    if op is Op.VECTOR:
        return _nearest(env.inputs[name], [int(a) for a in args])
    if op is Op.DOT:
        return sum(x * y for x, y in zip(*args, strict=True))  # type: ignore[call-overload]
    if op in SEARCHES:
        *row, value = (int(a) for a in args)
        data = env.inputs[name]
        for index in row:
            data = data[min(max(index, 0), len(data) - 1)]
        count = sum(entry < value or (entry == value and op is Op.FIRST_ABOVE) for entry in data)
        return -BEYOND if count == 0 else BEYOND if count == len(data) else count
    if op in _ROUNDED and node.args[0].type is Type.FLOAT:
        args = [to_float32(a) for a in args]
    if node.args[-1].type is Type.FLOAT and op in _FLOATS:
        return _FLOATS[op](*args)
    return _ANY[op](*args)


def _nearest(data: Any, indices: Sequence[int]) -> Scalar:
    for index in indices:
        data = data[min(max(index, 0), len(data) - 1)]
    result: Scalar = data
    return result


def to_float32(x: float) -> float:
    try:
        rounded: float = struct.unpack("f", struct.pack("f", x))[0]
        return rounded
    except OverflowError:
        return math.copysign(math.inf, x)


_ROUNDED = {Op.LT, Op.LE, Op.EQ, Op.NE, Op.FLOOR, Op.TO_INT}


def _to_int(x: float) -> int:
    if math.isnan(x):
        return 0
    if math.isinf(x):
        return 2**31 - 1 if x > 0 else -(2**31)
    return min(max(math.trunc(x), -(2**31)), 2**31 - 1)


def _divide(x: float, y: float) -> float:
    if y != 0:
        return x / y
    if x == 0 or math.isnan(x) or math.isnan(y):
        return math.nan
    return math.copysign(math.inf, x) * math.copysign(1.0, y)


def _ieee(f: Callable[[float], float], on_overflow: float = math.nan) -> Callable[[float], float]:
    def wrapped(x: float) -> float:
        try:
            return f(x)
        except ValueError:
            return math.nan
        except OverflowError:
            return on_overflow

    return wrapped


def _log(x: float) -> float:
    return -math.inf if x == 0 else _ieee(math.log)(x)


def _sigmoid(x: float) -> float:
    if x >= 0:
        return 1.0 / (1.0 + math.exp(-x))
    return math.exp(x) / (1.0 + math.exp(x)) if x < 0 else math.nan


def _least(*xs: float) -> float:
    return math.nan if any(map(math.isnan, xs)) else min(xs)


def _greatest(*xs: float) -> float:
    return math.nan if any(map(math.isnan, xs)) else max(xs)


_FLOATS: dict[Op, Callable[..., Any]] = {
    Op.MIN: _least,
    Op.MAX: _greatest,
    Op.CLAMP: lambda x, low, high: _least(_greatest(x, low), high),
    Op.DIV: _divide,
    Op.EXP: _ieee(math.exp, math.inf),
    Op.LOG: _log,
    Op.SQRT: _ieee(math.sqrt),
    Op.RSQRT: lambda x: _divide(1.0, _ieee(math.sqrt)(x)),
    Op.TANH: math.tanh,
    Op.SIGMOID: _sigmoid,
    Op.SIN: _ieee(math.sin),
    Op.COS: _ieee(math.cos),
    Op.FLOOR: lambda x: float(math.floor(x)) if math.isfinite(x) and x else x,
    Op.TO_INT: _to_int,
}
_ANY: dict[Op, Callable[..., Any]] = {
    Op.ADD: lambda x, y: x + y,
    Op.SUB: lambda x, y: x - y,
    Op.MUL: lambda x, y: x * y,
    Op.NEG: lambda x: -x,
    Op.ABS: abs,
    Op.MIN: min,
    Op.MAX: max,
    Op.CLAMP: lambda x, low, high: min(max(x, low), high),
    Op.FLOORDIV: lambda x, y: x // y if y else 0,
    Op.MOD: lambda x, y: x % y if y else 0,
    Op.LT: lambda x, y: x < y,
    Op.LE: lambda x, y: x <= y,
    Op.EQ: lambda x, y: x == y,
    Op.NE: lambda x, y: x != y,
    Op.AND: lambda x, y: x and y,
    Op.OR: lambda x, y: x or y,
    Op.NOT: lambda x: not x,
    Op.WHERE: lambda c, x, y: x if c else y,
    Op.TO_FLOAT: float,
}
