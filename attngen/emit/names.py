"""Names of the emitted module: the spec's own where they are free, never one that the templates use."""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable

from attngen.emit.triton_expr import HELPERS
from attngen.ir.nodes import SIZES, Expr, Op
from attngen.plan.base2 import LOG2_E, SCALE

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")

#: Names that stand for themselves wherever the kernels have them.
KERNEL_WORDS = ("q", "k", "pos", "b", "h", "h_kv", "q_first", "q_last", "k_first", "k_last", "dot", *SIZES)


class Names:
    """Hands out names that nothing else has. ``templates`` are the texts whose every word is taken."""

    def __init__(self, templates: Iterable[str], let_names: dict[Expr, str]) -> None:
        self._taken = set(keyword.kwlist) | set(dir(builtins)) | {*KERNEL_WORDS, *HELPERS}
        for text in templates:
            self._taken.update(_IDENTIFIER.findall(text))
        self._given: dict[str, str] = {word: word for word in (*KERNEL_WORDS, str(SCALE.value))}
        self._lets = let_names
        self._parts: dict[Expr, str] = {}

    def own(self, name: str) -> str:
        """What the kernels call an input, param or run-time size of the spec."""
        if name not in self._given:
            self._given[name] = self.fresh(name)
        return self._given[name]

    def fresh(self, wish: str) -> str:
        """``wish``, or the nearest name to it that is free; from now on taken."""
        name, number = wish, 2
        while name in self._taken or f"{name}_ptr" in self._taken:
            name, number = (f"{wish}_" if number == 2 else f"{wish}_{number - 1}"), number + 1
        self._taken.add(name)
        return name

    def part(self, node: Expr) -> str:
        """The name of a value that gets a line of its own; the same wherever it stands."""
        if node not in self._parts:
            self._parts[node] = self.fresh(self._wish(node))
        return self._parts[node]

    def _wish(self, node: Expr) -> str:
        if node in self._lets:
            return self._lets[node]
        if node.op is Op.LOAD:
            words = [str(i.value) for i in node.args if i.op is Op.WORD]
            return "_".join([str(node.value), *words])
        if node.op is Op.MUL and LOG2_E in node.args:
            other = next((a for a in node.args if a is not LOG2_E), node)
            return f"{self._wish(other)}_log2"
        if node.op is Op.MUL and node.args[0] is LOG2_E:
            return f"{self._wish(node.args[1])}_log2"
        if node.op is Op.SUB and [a.value for a in node.args] == ["pos", "k"]:
            return "dist"
        if node.op is Op.SUB and [a.value for a in node.args] == ["k_len", "q_len"]:
            return "offset"
        if node.op in (Op.WORD, Op.PARAM, Op.SIZE):
            return str(node.value)
        return _BY_OP.get(node.op, "value")


_BY_OP = {
    Op.ADD: "total",
    Op.SUB: "difference",
    Op.MUL: "product",
    Op.DIV: "ratio",
    Op.FLOORDIV: "quotient",
    Op.MOD: "remainder",
    Op.NEG: "negated",
    Op.ABS: "magnitude",
    Op.MIN: "least",
    Op.MAX: "greatest",
    Op.CLAMP: "clamped",
    Op.TANH: "bounded",
    Op.EXP: "exponential",
    Op.LOG: "logarithm",
    Op.SQRT: "root",
    Op.SIGMOID: "gate",
    Op.WHERE: "chosen",
    Op.TO_FLOAT: "number",
    Op.TO_INT: "whole",
    Op.FLOOR: "whole",
    Op.AND: "both",
    Op.OR: "either",
    Op.NOT: "otherwise",
    Op.LT: "below",
    Op.LE: "within",
    Op.EQ: "equal",
    Op.NE: "differs",
}
