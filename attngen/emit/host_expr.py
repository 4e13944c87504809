"""Expressions that the launcher computes in Python: consts, params and sizes only.

1.0 / sqrt(head_dim)   ->   1.0 / math.sqrt(q.shape[3])
p * 0.5                ->   float32(p) * 0.5
"""

from __future__ import annotations

import math
from collections.abc import Sequence

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
from attngen.ir.nodes import Expr, Op, postorder
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
    Op.DIV: ("/", PRODUCT),
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
    Op.EXP: "math.exp",
    Op.LOG: "math.log",
    Op.SQRT: "math.sqrt",
    Op.TANH: "math.tanh",
    Op.SIN: "math.sin",
    Op.COS: "math.cos",
}

# Operands of these are float32 by the language's definition, so that no bucket flips.
_ROUNDED = (Op.LT, Op.LE, Op.EQ, Op.NE, Op.FLOOR, Op.TO_INT)
_MATH = (Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.FLOOR)


class HostExpr:
    """Turns one node, whose operands have their text, into Python."""

    def __init__(self, names: Names) -> None:
        self._names = names

    def text(self, node: Expr, args: Sequence[Text]) -> Text:
        """The text of ``node``, whose operands' texts are ``args``."""
        if node.op is Op.CONST:
            return _constant(node)
        if node.op is Op.WORD:
            return Text(SIZE_TEXT[str(node.value)])
        if node.op in (Op.SIZE, Op.PARAM):
            name = Text(self._names.own(str(node.value)))
            return call("float32", name) if node.type is Type.FLOAT else name
        if node.op in _ROUNDED:
            args = [_rounded(a, text) for a, text in zip(node.args, args, strict=True)]
        if node.op in _INFIX:
            sign, level = _INFIX[node.op]
            return infix(args[0], sign, args[1], level)
        if node.op in _CALL:
            return call(_CALL[node.op], *args)
        return _special(node, args)

    def reads(self, node: Expr) -> list[str]:
        """Names are the function's own arguments: nothing to pass on."""
        return []


def needs_math(*roots: Expr) -> bool:
    """Whether the texts of ``roots`` call Python's ``math``."""
    return any(n.op in _MATH for n in postorder(*roots))


def needs_float32(*roots: Expr) -> bool:
    """Whether the texts of ``roots`` call ``float32``."""
    nodes = postorder(*roots)
    return any(
        (n.op is Op.PARAM and n.type is Type.FLOAT)
        or (n.op in _ROUNDED and any(_is_unrounded(a) for a in n.args))
        for n in nodes
    )


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
    if node.op is Op.RSQRT:
        return infix(Text("1.0"), "/", call("math.sqrt", first), PRODUCT)
    if node.op is Op.SIGMOID:  # by tanh, which overflows nowhere
        return Text(f"0.5 + 0.5 * math.tanh(0.5 * {first.at(UNARY)})", SUM)
    if node.op is Op.FLOOR:
        return call("float", call("math.floor", first))
    if node.op is Op.TO_INT:
        return Text(f"int(min(max({first.text}, -2147483648.0), 2147483647.0))")
    assert node.op is Op.TO_FLOAT, node.op
    return first  # Python mixes ints and floats as the language does
