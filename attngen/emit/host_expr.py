"""Expressions that the launcher computes in Python: consts, params and sizes only.

    1.0 / sqrt(head_dim)   ->   1.0 / math.sqrt(q.shape[3])
    p * 0.5                ->   float32(p) * 0.5
"""

from __future__ import annotations

from collections.abc import Callable

from attngen.ir.nodes import Expr, Op, postorder
from attngen.ir.types import Type

_INFIX = {
    Op.ADD: "+", Op.SUB: "-", Op.MUL: "*", Op.DIV: "/", Op.FLOORDIV: "//", Op.MOD: "%", Op.LT: "<", Op.LE: "<=",
    Op.EQ: "==", Op.NE: "!=", Op.AND: "and", Op.OR: "or",
}  # fmt: skip

_CALL = {
    Op.ABS: "abs({0})",
    Op.MIN: "min({0}, {1})",
    Op.MAX: "max({0}, {1})",
    Op.CLAMP: "min(max({0}, {1}), {2})",
    Op.NEG: "(-{0})",
    Op.NOT: "(not {0})",
    Op.EXP: "math.exp({0})",
    Op.LOG: "math.log({0})",
    Op.SQRT: "math.sqrt({0})",
    Op.RSQRT: "(1.0 / math.sqrt({0}))",
    Op.TANH: "math.tanh({0})",
    Op.SIGMOID: "(1.0 / (1.0 + math.exp(-{0})))",
    Op.SIN: "math.sin({0})",
    Op.COS: "math.cos({0})",
    Op.FLOOR: "float(math.floor({0}))",
    Op.TO_INT: "int({0})",
    Op.WHERE: "({1} if {0} else {2})",
}


def host_text(root: Expr, size: Callable[[str], str], own: Callable[[str], str]) -> str:
    """Python for ``root``. ``size`` gives the text of a size, ``own`` the launcher's name of a param."""
    texts: dict[Expr, str] = {}
    for node in postorder(root):
        args = [texts[a] for a in node.args]
        if node.op is Op.CONST:
            text = repr(node.value)
        elif node.op is Op.PARAM:
            name = own(str(node.value))
            text = f"float32({name})" if node.type is Type.FLOAT else name
        elif node.op in (Op.WORD, Op.SIZE):
            text = size(str(node.value))
        elif node.op is Op.TO_FLOAT:
            text = args[0]
        elif node.op in _INFIX:
            text = f"({args[0]} {_INFIX[node.op]} {args[1]})"
        else:
            text = _CALL[node.op].format(*args)
        texts[node] = text
    text = texts[root]
    return text[1:-1] if root.op in _INFIX else text
