"""Expressions as Triton text. The one place that knows Python's precedence and Triton's functions.

    slopes[h] * abs(pos - k)    ->    slopes_h * tl.abs(pos - k).to(tl.float32)

The text holds for a tile in either orientation: ``q`` and ``k`` broadcast against each other, whichever of them
runs along the rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from attngen.analysis.interval import Interval, fits_int32
from attngen.ir.nodes import AttentionIR, Expr, Op
from attngen.ir.types import Type

# Binding strength of Python's operators, loosest first.
OR, XOR, AND, SUM, PRODUCT, UNARY, ATOM = range(7)
COMPARE = -1  # looser than | and &: a comparison joined by them needs parentheses


@dataclass(frozen=True)
class Text:
    """A piece of an expression and the strength of its loosest operator."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text where an operand of this strength is expected."""
        return self.text if self.level >= level else f"({self.text})"


_BINARY = {
    Op.ADD: (" + ", SUM),
    Op.SUB: (" - ", SUM),
    Op.MUL: (" * ", PRODUCT),
    Op.DIV: (" / ", PRODUCT),
    Op.AND: (" & ", AND),
    Op.OR: (" | ", OR),
    Op.LT: (" < ", COMPARE),
    Op.LE: (" <= ", COMPARE),
    Op.EQ: (" == ", COMPARE),
    Op.NE: (" != ", COMPARE),
}

_CALL = {
    Op.ABS: "tl.abs",
    Op.MIN: "tl.minimum",
    Op.MAX: "tl.maximum",
    Op.EXP: "tl.exp",
    Op.LOG: "tl.log",
    Op.SQRT: "tl.sqrt",
    Op.RSQRT: "tl.rsqrt",
    Op.SIGMOID: "tl.sigmoid",
    Op.SIN: "tl.sin",
    Op.COS: "tl.cos",
    Op.FLOOR: "tl.floor",
    Op.WHERE: "tl.where",
}

#: Functions that the module defines when an expression calls them.
HELPERS = ("tanh", "floor_divide", "floor_modulo", "truncate")

# Words that index a dimension of this size, and so are always inside it.
_INSIDE = {"q": "q_len", "k": "k_len", "h": "heads", "h_kv": "kv_heads", "b": "batch"}


class TritonExpr:
    """Turns one node, whose operands have their text, into text.

    ``intervals`` must hold every node (see ``analysis.interval``): they decide where an index needs a clamp,
    an integer 64 bits, and a division care for signs.
    """

    def __init__(self, ir: AttentionIR, intervals: Mapping[Expr, Interval], rename: Callable[[str], str]) -> None:
        self._ir = ir
        self._intervals = intervals
        self._rename = rename
        self._wide: dict[Expr, bool] = {}

    def text(self, node: Expr, args: list[Text]) -> Text:
        if node.op is Op.CONST:
            return _constant(node)
        if node.op in (Op.WORD, Op.SIZE, Op.PARAM):
            name = self._rename(str(node.value))
            return Text(f"{name} != 0", COMPARE) if node.type is Type.BOOL else Text(name)
        if node.op is Op.SCORE:
            return Text("dot")
        if node.op is Op.LOAD:
            return self._load(node, args)
        if node.type is Type.INT or (node.args and node.args[0].type is Type.INT):
            args = self._widened(node, args)
        if node.op in _BINARY:
            sign, level = _BINARY[node.op]
            tight = level in (SUM, PRODUCT) and node.op in (Op.SUB, Op.DIV)
            left = args[0].at(max(level, OR))
            right = args[1].at(level + 1 if tight or level == COMPARE else level)
            return Text(left + sign + right, level)
        if node.op in _CALL:
            return Text(f"{_CALL[node.op]}({', '.join(a.text for a in args)})")
        return self._special(node, args)

    def is_wide(self, node: Expr) -> bool:
        """Whether an INT node is computed in 64 bits."""
        return self._wide.get(node, False)

    def _special(self, node: Expr, args: list[Text]) -> Text:
        first = args[0]
        if node.op is Op.NEG:
            return Text(f"-{first.at(UNARY)}", UNARY)
        if node.op is Op.NOT:
            return Text(f"~{first.at(UNARY)}", UNARY)
        if node.op is Op.CLAMP:
            return Text(f"tl.minimum(tl.maximum({first.text}, {args[1].text}), {args[2].text})")
        if node.op is Op.TANH:
            return Text(f"tanh({first.text}, FAST_TANH)")
        if node.op is Op.TO_FLOAT:
            return Text(f"{first.at(ATOM)}.to(tl.float32)")
        if node.op is Op.TO_INT:
            inside = self._intervals[node.args[0]]
            if fits_int32(inside) and not inside.may_nan:
                return Text(f"{first.at(ATOM)}.to(tl.int32)")
            return Text(f"truncate({first.text})")
        return self._division(node, args)

    def _division(self, node: Expr, args: list[Text]) -> Text:
        """``//`` and ``%``, which truncate in Triton and round down in the language."""
        x, y = (self._intervals[a] for a in node.args)
        if x.lo >= 0 and y.lo > 0:
            sign = " // " if node.op is Op.FLOORDIV else " % "
            return Text(f"{args[0].at(PRODUCT)}{sign}{args[1].at(UNARY)}", PRODUCT)
        name = "floor_divide" if node.op is Op.FLOORDIV else "floor_modulo"
        return Text(f"{name}({args[0].text}, {args[1].text})")

    def _widened(self, node: Expr, args: list[Text]) -> list[Text]:
        """Operands in 64 bits where the result may pass int32."""
        wide = any(self.is_wide(a) for a in node.args)
        if node.type is Type.INT:
            wide = wide or not fits_int32(self._intervals[node])
            self._wide[node] = wide
        if not wide:
            return args
        return [
            Text(f"{text.at(ATOM)}.to(tl.int64)")
            if arg.type is Type.INT and not self.is_wide(arg) and arg.op is not Op.CONST
            else text
            for arg, text in zip(node.args, args, strict=True)
        ]

    def _load(self, node: Expr, args: list[Text]) -> Text:
        item = self._ir.input(str(node.value))
        name = self._rename(item.name)
        terms = [f"{name}_ptr"]
        for axis, (index, text, dim) in enumerate(zip(node.args, args, item.dims, strict=True)):
            place = self._inside(index, text, dim)
            if not self.is_wide(index) and index.op is not Op.CONST:
                place = Text(f"{place.at(ATOM)}.to(tl.int64)")
            terms.append(f"{place.at(PRODUCT)} * {name}_stride_{axis}")
        loaded = f"tl.load({' + '.join(terms)})"
        self._wide[node] = item.dtype == "int64"
        if item.dtype in ("float16", "bfloat16"):
            loaded += ".to(tl.float32)"
        return Text(loaded)

    def load_names(self, node: Expr) -> list[str]:
        """The kernel arguments that a LOAD's text reads: pointer, strides, and the sizes of its clamps."""
        item = self._ir.input(str(node.value))
        name = self._rename(item.name)
        strides = [f"{name}_stride_{axis}" for axis in range(len(item.dims))]
        sizes = [
            self._rename(dim)
            for index, dim in zip(node.args, item.dims, strict=True)
            if isinstance(dim, str) and not self._ends_inside(index, dim)
        ]
        return [f"{name}_ptr", *strides, *sizes]

    def _inside(self, index: Expr, text: Text, dim: int | str) -> Text:
        """An index kept inside its dimension; no clamp where it provably is."""
        bounds = self._intervals[index]
        last = str(dim - 1) if isinstance(dim, int) else f"{self._rename(dim)} - 1"
        if not self._ends_inside(index, dim):
            text = Text(f"tl.minimum({text.text}, {last})")
        if bounds.lo < 0:
            text = Text(f"tl.maximum({text.text}, 0)")
        return text

    def _ends_inside(self, index: Expr, dim: int | str) -> bool:
        if isinstance(dim, int):
            return self._intervals[index].hi <= dim - 1
        if index.op is not Op.WORD:
            return False
        return _INSIDE.get(str(index.value)) == dim or (index.value == "pos" and dim == "k_len")


def _constant(node: Expr) -> Text:
    value = node.value
    if isinstance(value, float) and not math.isfinite(value):
        return Text(f'float("{value}")')
    assert isinstance(value, (bool, int, float))
    if isinstance(value, bool):
        return Text(f"tl.full([], {value}, tl.int1)")
    return Text(repr(value), UNARY if math.copysign(1, value) < 0 else ATOM)
