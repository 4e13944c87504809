"""Expressions as Triton text: one node at a time, its operands already written.

    slopes[h] * abs(pos - k)    ->    slopes_h * tl.abs(pos - k).to(tl.float32)

The text holds for a tile in either orientation: ``q`` and ``k`` broadcast against each other, whichever of
them runs along the rows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from attngen.analysis.interval import fits_int32
from attngen.analysis.rates import Rate, extend
from attngen.emit.names import Names
from attngen.emit.precedence import ATOM, BIT_AND, BIT_OR, COMPARE, PRODUCT, SUM, UNARY, Text, call, infix
from attngen.ir.nodes import SCORE, SEARCHES, SIZES, AttentionIR, Expr, Input, Op
from attngen.ir.types import Type
from attngen.plan.arithmetic import Arithmetic

_INFIX = {
    Op.ADD: ("+", SUM),
    Op.SUB: ("-", SUM),
    Op.MUL: ("*", PRODUCT),
    Op.DIV: ("/", PRODUCT),
    Op.AND: ("&", BIT_AND),
    Op.OR: ("|", BIT_OR),
    Op.LT: ("<", COMPARE),
    Op.LE: ("<=", COMPARE),
    Op.EQ: ("==", COMPARE),
    Op.NE: ("!=", COMPARE),
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

# A constant reads better on the right: 0 <= x is x >= 0.
_FLIPPED = {Op.LT: ">", Op.LE: ">=", Op.EQ: "==", Op.NE: "!="}

_LEAST_NORMAL, _GREATEST = 2.0**-126, (2 - 2**-23) * 2.0**127  # float32


class TritonExpr:
    """Turns one node, whose operands have their text, into text.

    ``arithmetic`` must hold every node: it decides where an index needs a clamp, an integer 64 bits, a
    division care for signs and an operation a rounding of its own. ``accumulated`` is what the tile ``dot``
    holds: the raw product, or its sum with products of rows.
    """

    def __init__(
        self, ir: AttentionIR, arithmetic: Arithmetic, names: Names, accumulated: Expr = SCORE
    ) -> None:
        self._inputs: dict[str, Input] = {i.name: i for i in ir.inputs}
        self._arithmetic = arithmetic
        self._names = names
        self._rates: dict[Expr, Rate] = {}
        self._accumulated = accumulated

    def text(self, node: Expr, args: Sequence[Text]) -> Text:
        """The text of ``node``, whose operands, written before, have the texts ``args``."""
        if node.op is Op.CONST:
            return self._constant(node)
        if node is self._accumulated or node.op is Op.SCORE:
            return Text("dot")
        if node.op is Op.WEIGHT:
            return Text("weights")
        if node.op is Op.DOT:
            return Text(self._names.part(node))
        if node.op is Op.WORD:
            return Text(str(node.value))
        if node.op in (Op.SIZE, Op.PARAM):
            name = self._names.own(str(node.value))
            return Text(f"{name} != 0", COMPARE) if node.type is Type.BOOL else Text(name)
        if node.op is Op.LOAD:
            return self._load(node, args)
        if node.op in SEARCHES:
            return self._search(node, args)
        args = self._operands(node, args)
        if node.op in _FLIPPED:
            return self._comparison(node, args)
        if node in self._arithmetic.alone:
            return _rounded_alone(node.op, args)
        if node.op in _INFIX:
            sign, level = _INFIX[node.op]
            return infix(args[0], sign, args[1], level)
        if node.op in _CALL:
            return call(_CALL[node.op], *args)
        return self._special(node, args)

    def reads(self, node: Expr) -> list[str]:
        """The names of its scope that a node's own text reads."""
        if node is self._accumulated or node.op is Op.SCORE:
            return ["dot"]
        if node.op is Op.WEIGHT:
            return ["weights"]
        if node.op is Op.DOT:
            return [self._names.part(node)]
        if node.op is Op.WORD:
            return [str(node.value)]
        if node.op in (Op.SIZE, Op.PARAM):
            return [self._names.own(str(node.value))]
        if node.op is Op.LOAD:
            return self._reads_of_place(node, self._names.own(str(node.value)))
        if node.op in SEARCHES:
            return self._reads_of_row(node)
        return ["FAST_TANH"] if node.op is Op.TANH else []

    def operands(self, node: Expr) -> tuple[Expr, ...]:
        """What is written before a node: nothing where the kernels have computed its tile."""
        return () if node is self._accumulated or node.op is Op.DOT else node.args

    def is_wide(self, node: Expr) -> bool:
        """Whether an INT node is computed in 64 bits."""
        return node in self._arithmetic.wide

    def _constant(self, node: Expr) -> Text:
        value = node.value
        assert isinstance(value, (bool, int, float))
        if isinstance(value, bool):
            return Text(f"tl.cast({value}, tl.int1)")
        if isinstance(value, int):
            if 2**31 <= value < 2**32:
                return Text(f"tl.cast({value}, tl.int64)")  # Triton would make the literal a uint32
        elif math.isnan(value):
            return Text('float("nan")')
        elif abs(value) > _GREATEST:
            return Text(f'float("{math.copysign(math.inf, value)}")')
        elif 0 < abs(value) < _LEAST_NORMAL:
            return Text(f"tl.cast({value!r}, tl.float32)")  # Triton would make the literal a float64
        return Text(repr(value), UNARY if math.copysign(1, value) < 0 else ATOM)

    def _special(self, node: Expr, args: Sequence[Text]) -> Text:
        first = args[0]
        if node.op is Op.NEG:
            return Text(f"-{first.at(UNARY)}", UNARY)
        if node.op is Op.NOT:
            return Text(f"~{first.at(UNARY)}", UNARY)
        if node.op is Op.CLAMP:
            return call("tl.minimum", call("tl.maximum", first, args[1]), args[2])
        if node.op is Op.TANH:
            return call("tanh", first, Text("FAST_TANH"))
        if node.op is Op.TO_FLOAT:
            return _cast(first, "float32")
        if node.op is Op.TO_INT:
            inside = self._arithmetic.intervals[node.args[0]]
            if fits_int32(inside) and not inside.may_nan:
                return _cast(first, "int32")
            return call("truncate", first)
        return self._division(node, args)

    def _comparison(self, node: Expr, args: Sequence[Text]) -> Text:
        """One float comparison for the whole program goes through ``as_bool``, which says why."""
        left, right = node.args
        if left.op is Op.CONST and right.op is not Op.CONST:
            text = infix(args[1], _FLIPPED[node.op], args[0], COMPARE)
        else:
            text = infix(args[0], _INFIX[node.op][0], args[1], COMPARE)
        if left.type is Type.FLOAT and extend(self._rates, node) <= Rate.PROGRAM:
            return call("as_bool", text)
        return text

    def _division(self, node: Expr, args: Sequence[Text]) -> Text:
        """``//`` and ``%``, which truncate in Triton and round down in the language."""
        is_quotient = node.op is Op.FLOORDIV
        if self._arithmetic.divides_plainly(node):
            return infix(args[0], "//" if is_quotient else "%", args[1], PRODUCT)
        return call("floor_divide" if is_quotient else "floor_modulo", *args)

    def _operands(self, node: Expr, args: Sequence[Text]) -> Sequence[Text]:
        """Operands in 64 bits where one is or the result may pass int32; no literal only with literals."""
        wide = any(map(self.is_wide, (node, *node.args)))
        if all(a.op is Op.CONST for a in node.args):
            return [_tensor(a, text, wide) for a, text in zip(node.args, args, strict=True)]
        if not wide:
            return args
        return [
            _cast(text, "int64")
            if arg.type is Type.INT and arg.op is not Op.CONST and not self.is_wide(arg)
            else text  # a literal takes the type of what it meets
            for arg, text in zip(node.args, args, strict=True)
        ]

    # -- inputs ----------------------------------------------------------------------------------------------

    def _load(self, node: Expr, args: Sequence[Text]) -> Text:
        item = self._inputs[str(node.value)]
        loaded = call("tl.load", self._place(node, args, self._names.own(item.name)))
        return _cast(loaded, "float32") if item.dtype in ("float16", "bfloat16") else loaded

    def _search(self, node: Expr, args: Sequence[Text]) -> Text:
        """``search(row, stride, length, value, ABOVE)``: an int32."""
        item, name = self._inputs[str(node.value)], self._names.own(str(node.value))
        row = self._place(node, args, name)  # of the last dimension's first element
        *_, dim = item.dims
        length = str(dim) if isinstance(dim, int) else self._size(dim)
        above = Text(str(node.op is Op.FIRST_ABOVE))
        return call("search", row, Text(f"{name}_stride_{len(item.dims) - 1}"), Text(length), args[-1], above)

    def _reads_of_row(self, node: Expr) -> list[str]:
        item, name = self._inputs[str(node.value)], self._names.own(str(node.value))
        *_, dim = item.dims
        size = [self._size(dim)] if isinstance(dim, str) else []
        return [*self._reads_of_place(node, name), f"{name}_stride_{len(item.dims) - 1}", *size]

    def gradient_place(self, node: Expr, args: Sequence[Text]) -> Text:
        """Where, in the gradient of its input, the element lies that a LOAD reads."""
        return self._place(node, args, self._names.gradient(str(node.value)))

    def reads_of_gradient_place(self, node: Expr) -> list[str]:
        """The names that the text of ``gradient_place`` reads."""
        return self._reads_of_place(node, self._names.gradient(str(node.value)))

    def _place(self, node: Expr, args: Sequence[Text], name: str) -> Text:
        item = self._inputs[str(node.value)]
        place = Text(f"{name}_ptr")
        for axis, (index, text, dim) in enumerate(zip(node.args, args, item.dims, strict=True)):
            if not _is_first(index, dim) and not _is_sought(node, axis):
                stride = Text(f"{name}_stride_{axis}")
                place = infix(place, "+", infix(self._inside(index, text, dim), "*", stride, PRODUCT), SUM)
        return place

    def _reads_of_place(self, node: Expr, name: str) -> list[str]:
        """Pointer, strides, and the sizes of the clamps."""
        item = self._inputs[str(node.value)]
        strides, sizes = [], []
        for axis, (index, dim) in enumerate(zip(node.args, item.dims, strict=True)):
            if not _is_first(index, dim) and not _is_sought(node, axis):
                strides.append(f"{name}_stride_{axis}")
                if isinstance(dim, str) and not self._arithmetic.ends_inside(index, dim):
                    sizes.append(self._size(dim))
        return [f"{name}_ptr", *strides, *sizes]

    def _inside(self, index: Expr, text: Text, dim: int | str) -> Text:
        """An index in 64 bits, kept inside its dimension; no clamp where it provably is."""
        if index.op is Op.CONST and isinstance(index.value, int) and isinstance(dim, int):
            return Text(f"tl.cast({min(index.value, dim - 1)}, tl.int64)")
        if not self._arithmetic.ends_inside(index, dim):
            last = str(dim - 1) if isinstance(dim, int) else f"{self._size(dim)} - 1"
            text = call("tl.minimum", text, Text(last))
        if not self._arithmetic.starts_inside(index):
            text = call("tl.maximum", text, Text("0"))
        return text if self.is_wide(index) else _cast(text, "int64")

    def _size(self, dim: str) -> str:
        return dim if dim in SIZES else self._names.own(dim)


def _tensor(constant: Expr, text: Text, wide: bool) -> Text:
    """A constant that Triton, not Python, computes with."""
    if text.text.startswith("tl.cast("):
        return text
    kind = "float32" if constant.type is Type.FLOAT else "int64" if wide else "int32"
    return Text(f"tl.cast({text.text}, tl.{kind})")


def _rounded_alone(op: Op, args: Sequence[Text]) -> Text:
    if op is Op.RSQRT:
        return call("tl.div_rn", Text("1.0"), call("tl.sqrt_rn", *args))
    return call({Op.DIV: "tl.div_rn", Op.SQRT: "tl.sqrt_rn", Op.MUL: "product"}[op], *args)


def _cast(text: Text, dtype: str) -> Text:
    return Text(f"{text.at(ATOM)}.to(tl.{dtype})")


def _is_sought(node: Expr, axis: int) -> bool:
    """Whether the operand of a search is its value, not an index."""
    return node.op in SEARCHES and axis == len(node.args) - 1


def _is_first(index: Expr, dim: int | str) -> bool:
    """Whether an index always reads the first element of its dimension."""
    return dim == 1 or (index.op is Op.CONST and isinstance(index.value, int) and index.value <= 0)
