"""Expressions that the launcher computes in Python: consts, params and sizes only.

1.0 / sqrt(head_dim)   ->   1.0 / math.sqrt(q.shape[3])
p * 0.5                ->   float32(p) * 0.5
1.0 / p                ->   (float64(1.0) / float32(p)).item()

Floats have 64 bits here, as in the reference, and IEEE's values: where Python might raise, torch computes.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from attngen.analysis.interval import ANY_FLOAT, Interval, is_finite
from attngen.emit.names import Names
from attngen.emit.precedence import (
    AND,
    ATOM,
    COMPARE,
    CONDITIONAL,
    NOT,
    OR,
    PRODUCT,
    SUM,
    UNARY,
    Text,
    call,
    infix,
)
from attngen.ir.nodes import Expr, Op
from attngen.ir.types import Type

#: What the launcher reads a size word from.
SIZE_TEXT = {
    "batch": "q.shape[0]",
    "heads": "q.shape[1]",
    "kv_heads": "k.shape[1]",
    "q_len": "q.shape[2]",
    "k_len": "k.shape[2]",
    "head_dim": "q.shape[3]",
    "v_dim": "v.shape[3]",
}

_INFIX = {
    Op.ADD: ("+", SUM),
    Op.SUB: ("-", SUM),
    Op.MUL: ("*", PRODUCT),
    Op.LT: ("<", COMPARE),
    Op.LE: ("<=", COMPARE),
    Op.EQ: ("==", COMPARE),
    Op.NE: ("!=", COMPARE),
    Op.AND: ("and", AND),
    Op.OR: ("or", OR),
}

_CALL = {
    Op.ABS: "abs",
    Op.MIN: "min",
    Op.MAX: "max",
    Op.TANH: "math.tanh",
}

# Python's function, torch's method, and of which operands the first cannot raise.
_MATH: dict[Op, tuple[str, str, Callable[[Interval], bool]]] = {
    Op.EXP: ("math.exp", "exp", lambda x: x.hi < 700),
    Op.LOG: ("math.log", "log", lambda x: x.lo > 0 and is_finite(x)),
    Op.SQRT: ("math.sqrt", "sqrt", lambda x: x.lo >= 0 and is_finite(x)),
    Op.SIN: ("math.sin", "sin", is_finite),
    Op.COS: ("math.cos", "cos", is_finite),
}

# Operands of these are float32 by the language's definition, so that no bucket flips.
_ROUNDED = (Op.LT, Op.LE, Op.EQ, Op.NE, Op.FLOOR, Op.TO_INT)


class HostExpr:
    """Turns one node, whose operands have their text, into Python.

    ``intervals`` must hold every node (see ``analysis.interval``): they decide whether Python may raise.
    """

    def __init__(self, intervals: Mapping[Expr, Interval], names: Names) -> None:
        self._intervals = intervals
        self._names = names
        self._open: set[Expr] = set()  # what float params decide: they may be infinite, or NaN

    def text(self, node: Expr, args: Sequence[Text]) -> Text:
        """The text of ``node``, whose operands' texts are ``args``."""
        if (node.op is Op.PARAM and node.type is Type.FLOAT) or not self._open.isdisjoint(node.args):
            self._open.add(node)
        if node.op is Op.CONST:
            return _constant(node)
        if node.op is Op.WORD:
            return Text(SIZE_TEXT[str(node.value)])
        if node.op in (Op.SIZE, Op.PARAM):
            name = Text(self._names.own(str(node.value)))
            return call("float32", name) if node.type is Type.FLOAT else name
        if node.op in _ROUNDED:
            args = [_rounded(a, text) for a, text in zip(node.args, args, strict=True)]
        if node.op in (Op.DIV, Op.RSQRT, *_MATH):
            return self._partial(node, args)
        if node.op in _INFIX:
            sign, level = _INFIX[node.op]
            return infix(args[0], sign, args[1], level)
        if node.op in _CALL:
            return call(_CALL[node.op], *args)
        return _special(node, args)

    def _partial(self, node: Expr, args: Sequence[Text]) -> Text:
        """What Python refuses of some operands."""
        last = ANY_FLOAT if node.args[-1] in self._open else self._intervals[node.args[-1]]
        if node.op is Op.DIV:
            if last.lo > 0 or last.hi < 0:
                return infix(args[0], "/", args[1], PRODUCT)
            quotient = infix(call("float64", args[0]), "/", args[1], PRODUCT)
            return Text(f"({quotient.text}).item()")
        if node.op is Op.RSQRT:
            if last.lo > 0 and is_finite(last):
                return infix(Text("1.0"), "/", call("math.sqrt", args[0]), PRODUCT)
            return _torch(args[0], "rsqrt")
        function, method, is_defined = _MATH[node.op]
        return call(function, args[0]) if is_defined(last) else _torch(args[0], method)

    def operands(self, node: Expr) -> tuple[Expr, ...]:
        """What is written before a node."""
        return node.args

    def reads(self, node: Expr) -> list[str]:
        """Names are the function's own arguments: nothing to pass on."""
        return []


def _constant(node: Expr) -> Text:
    value = node.value
    assert isinstance(value, (bool, int, float))
    if not math.isfinite(value):
        return Text(f'float("{value}")')
    return Text(repr(value), UNARY if math.copysign(1, value) < 0 else ATOM)


def _is_unrounded(node: Expr) -> bool:
    return node.type is Type.FLOAT and node.op is not Op.PARAM


def _rounded(node: Expr, text: Text) -> Text:
    return call("float32", text) if _is_unrounded(node) else text


def _torch(x: Text, method: str) -> Text:
    return Text(f"float64({x.text}).{method}().item()")


def _special(node: Expr, args: Sequence[Text]) -> Text:
    first = args[0]
    if node.op in (Op.FLOORDIV, Op.MOD):
        quotient = infix(first, "//" if node.op is Op.FLOORDIV else "%", args[1], PRODUCT)
        if node.args[1].op is Op.CONST:
            return quotient
        return Text(f"{quotient.text} if {args[1].at(OR)} else 0", CONDITIONAL)
    if node.op is Op.WHERE:
        return Text(f"{args[1].at(OR)} if {first.at(OR)} else {args[2].at(OR)}", CONDITIONAL)
    if node.op is Op.NEG:
        return Text(f"-{first.at(UNARY)}", UNARY)
    if node.op is Op.NOT:
        return Text(f"not {first.at(NOT)}", NOT)
    if node.op is Op.CLAMP:
        return call("min", call("max", first, args[1]), args[2])
    if node.op is Op.SIGMOID:  # by tanh, which overflows nowhere
        return Text(f"0.5 + 0.5 * math.tanh(0.5 * {first.at(UNARY)})", SUM)
    if node.op is Op.FLOOR:
        return _torch(first, "floor")
    if node.op is Op.TO_INT:
        return Text(f"int(float64({first.text}).nan_to_num().clamp(-2147483648.0, 2147483647.0))")
    assert node.op is Op.TO_FLOAT, node.op
    return first  # Python mixes ints and floats as the language does
