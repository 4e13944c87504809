"""Names of the emitted module: the spec's own where they are free, never one that the module itself uses.

input slopes      ->   slopes, slopes_ptr, slopes_stride_0, ...
param acc         ->   acc_        the kernels have an ``acc`` of their own
slopes[h] * 1.44  ->   slopes_h_log2
"""

from __future__ import annotations

import builtins
import keyword
import re
from collections.abc import Iterable, Mapping

from attngen.ir.nodes import CORNERS, POSITIONS, SEARCHES, SIZES, AttentionIR, Expr, Op, make, word
from attngen.ir.types import Type
from attngen.plan.base2 import LOG2_E, SCALE

_IDENTIFIER = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_NOT_CODE = re.compile(r'\{#.*?#\}|\{%.*?%\}|""".*?"""|#[^\n]*', re.DOTALL)
_SLOT = re.compile(r"\{\{.*?\}\}")  # of a template: only what it quotes can be a word of the module
_QUOTED = re.compile(r'"([^"]*)"')

#: Functions that every or some module defines, by the name they have unless the variant's is the same.
FUNCTIONS: tuple[str, ...] = ("logits", "logits_and_derivative", "input_derivatives", "keeps")
FUNCTIONS += (
    "normalized",
    "reweighted",
    "weight_slope",
    "weight_derivatives",
    "product_derivatives",
    "key_range",
    "query_range",
    "may_keep",
    "run_attention",
)
FUNCTIONS += ("far_logits", "far_logits_and_derivative", "far_derivatives")
FUNCTIONS += ("tile_logits", "tile_logits_and_derivative")

#: Functions of the templates that an expression may call.
HELPERS = ("tanh", "floor_divide", "floor_modulo", "truncate", "as_bool", "product")

#: And those that lines in a loop over tiles may call beside them.
RUNS = ("number_of_run", "place_in_run")

#: Names that emitted lines use beside the words of the language and those of the templates.
LINES: tuple[str, ...] = (
    "dot",
    "weights",
    "slope",
    "FAST_TANH",
    "BLOCK",
    "clip",
    "out_of_the_way",
    "whole_tiles",
    "search",
    "over",
    "whole",
    "inside",
)
LINES += ("inner", "edges", "gaps", "walk", "lo", "hi", "full_lo", "full_hi", "input_strides")
LINES += tuple(f"{end}_{n}" for end in ("lo", "hi", "full_lo", "full_hi") for n in range(4))
#: What a factor of a product is beside its tile: what a kernel loads it from, and its gradient stores to.
FACTOR_SUFFIXES = ("", "_source", "_strides", "_of", "_target")
DROPOUT = ("Seed", "seed", "threshold", "kept_scale", "kept", "head", "dropout_of", "is_kept")

_LONGEST = 32  # characters of a name made from an expression


def _code_of(template: str) -> str:
    """What a template may write into a module, without Jinja's tags and the names of its macros."""
    return _SLOT.sub(lambda slot: " ".join(_QUOTED.findall(slot.group())), _NOT_CODE.sub("", template))


class Names:
    """Hands out names that nothing else has. ``templates`` are the texts whose every word is taken."""

    def __init__(self, ir: AttentionIR, templates: Iterable[str] = ()) -> None:
        self._taken = {*keyword.kwlist, *keyword.softkwlist, *dir(builtins)}
        self._taken.update(POSITIONS, SIZES, CORNERS, HELPERS, FUNCTIONS, LINES, DROPOUT)
        for text in templates:
            self._taken.update(_IDENTIFIER.findall(_code_of(text)))
        self._tried: dict[str, int] = {}
        self._own: dict[str, str] = {str(SCALE.value): str(SCALE.value)}
        self._gradients: dict[str, str] = {}
        self._parts: dict[Expr, str] = {}
        self._lets: Mapping[Expr, str] = ir.names
        public = {ir.name, *(i.name for i in ir.inputs), *(p.name for p in ir.params)}
        self._functions = {name: self.fresh(name) if name in public else name for name in FUNCTIONS}
        for item in ir.inputs:
            suffixes = ("", "_ptr", *(f"_stride_{axis}" for axis in range(len(item.dims))))
            suffixes += FACTOR_SUFFIXES[1:]
            # "start_input_ptr" where "start" is taken: "start__ptr" would be hard to read.
            is_free = not any(item.name + suffix in self._taken for suffix in suffixes)
            self._own[item.name] = self.fresh(item.name if is_free else f"{item.name}_input", suffixes)
            if item.grad:
                self._gradients[item.name] = self.fresh(f"d_{item.name}", suffixes)
        run_time_sizes = (d for i in ir.inputs for d in i.dims if isinstance(d, str) and d not in SIZES)
        for name in (*(p.name for p in ir.params), *dict.fromkeys(run_time_sizes)):
            self._own[name] = self.fresh(name)

    def own(self, name: str) -> str:
        """What the module calls an input, param or run-time size of the spec."""
        return self._own[name]

    def adopt(self, name: str, wish: str) -> None:
        """Give a name of the plan's own one in the module: ``wish``, or the nearest to it."""
        self._own[name] = self.fresh(wish)

    def gradient(self, name: str) -> str:
        """What the module calls the gradient of a learned input."""
        return self._gradients[name]

    def function(self, name: str) -> str:
        """What the module calls one of ``FUNCTIONS``."""
        return self._functions[name]

    def fresh(self, wish: str, suffixes: tuple[str, ...] = ("",)) -> str:
        """``wish``, or the nearest name to it that is free with each suffix; from now on taken."""
        number = self._tried.get(wish, 0)
        name = _numbered(wish, number)
        while any(name + suffix in self._taken for suffix in suffixes):
            number += 1
            name = _numbered(wish, number)
        self._tried[wish] = number
        self._taken.update(name + suffix for suffix in suffixes)
        return name

    def wish(self, node: Expr, wish: str) -> None:
        """Name a value before ``part`` does: ``wish``, or the nearest to it."""
        self._parts[node] = self.fresh(wish)

    def part(self, node: Expr) -> str:
        """The name of a value that gets a line of its own; the same wherever it stands."""
        if node not in self._parts:
            self._parts[node] = self.fresh(self._wish(node))
        return self._parts[node]

    def _wish(self, node: Expr) -> str:
        if node in self._lets:
            return self._lets[node]
        if node.op is Op.MUL and LOG2_E in node.args:
            other = node.args[node.args[0] is LOG2_E]
            wish = f"{self._lets.get(other) or _described(other)}_log2"
        else:
            wish = _described(node)
        return wish if len(wish) <= _LONGEST else _BY_OP.get(node.op, str(node.value))


def _numbered(wish: str, number: int) -> str:
    return wish if number == 0 else f"{wish}_" if number == 1 else f"{wish}_{number}"


def _described(node: Expr) -> str:
    """A name that says what the value is: a small expression read aloud, else its outermost operation."""
    if node.op is Op.DOT:
        return "_dot_".join(str(vector.value) for vector in node.args)
    if node in _KNOWN:
        return _KNOWN[node]
    if node.op in _LEAVES:
        indices = (_KNOWN.get(i, str(i.value)) for i in node.args if i.op is Op.WORD or i in _KNOWN)
        name = str(node.value).replace(" ", "_")  # what stands in for a read far away has blanks
        return "_".join([name, *indices])
    if node.op in SEARCHES:
        return f"{node.value}_{_sought(node)}"
    return _spoken(node) or _BY_OP.get(node.op, "value")


def _spoken(node: Expr, depth: int = 3) -> str | None:
    """A small expression read aloud; None where it is too long for a name."""
    if depth == 0 or not node.args or node in _KNOWN or node.op in _LEAVES or node.op in SEARCHES:
        if node.op is Op.CONST and node.type is Type.INT:
            return str(node.value) if int(node.value or 0) >= 0 else None
        named = node in _KNOWN or node.op in _LEAVES or node.op in SEARCHES
        return _described(node) if named else None
    if len(node.args) != 2:
        return None
    first, second = node.args
    if first.op is Op.CONST and node.op in _TURNED:
        (first, second), word_between = (second, first), _TURNED[node.op]
    elif second.op is Op.CONST and node.op in _BOUNDED:
        word_between = _BOUNDED[node.op]
    elif node.op in _INFIX:
        word_between = _INFIX[node.op]
    else:
        return None
    if node.op is Op.MUL and first.op is Op.FLOORDIV and first.args[1] is second:
        rounded = _spoken(first.args[0], depth - 1)
        return rounded and f"{rounded}_rounded_down"
    texts = _spoken(first, depth - 1), _spoken(second, depth - 1)
    if None in texts or first.op is Op.CONST:
        return None
    text = f"{texts[0]}_{word_between}_{texts[1]}"
    return text if len(text) <= _LONGEST else None


def _sought(node: Expr) -> str:
    """Where entries like some other begin or end, or where a value is first met."""
    begins, ends = ("begins", "ends") if node.args[-1].op is Op.LOAD else ("from", "above")
    return begins if node.op is Op.FIRST else ends


_OFFSET = make(Op.SUB, word("k_len"), word("q_len"))
# What the maths calls these: the distance, and where a tile's corners lie on the other axis.
_KNOWN = {
    make(Op.SUB, word("pos"), word("k")): "dist",
    _OFFSET: "offset",
    make(Op.ADD, word("q_first"), _OFFSET): "first_pos",
    make(Op.ADD, word("q_last"), _OFFSET): "last_pos",
    make(Op.SUB, word("k_first"), _OFFSET): "first_row",
    make(Op.SUB, word("k_last"), _OFFSET): "last_row",
}
_LEAVES = (Op.WORD, Op.PARAM, Op.SIZE, Op.LOAD)

_INFIX = {
    Op.ADD: "plus",
    Op.SUB: "minus",
    Op.MUL: "times",
    Op.DIV: "over",
    Op.FLOORDIV: "over",
    Op.MOD: "mod",
    Op.LT: "below",
    Op.LE: "up_to",
    Op.EQ: "is",
    Op.NE: "is_not",
    Op.AND: "and",
}
_TURNED = {Op.LT: "above", Op.LE: "from"}  # where the constant stands first: 0 < n
_BOUNDED = {Op.MIN: "at_most", Op.MAX: "at_least"}

_BY_OP = {
    Op.ADD: "subtotal",
    Op.SUB: "difference",
    Op.MUL: "multiplied",
    Op.DIV: "ratio",
    Op.FLOORDIV: "divided",
    Op.MOD: "left_over",
    Op.NEG: "negated",
    Op.ABS: "magnitude",
    Op.MIN: "smaller",
    Op.MAX: "greatest",
    Op.CLAMP: "clamped",
    Op.DOT: "row_product",
    Op.TANH: "squashed",
    Op.EXP: "exponential",
    Op.LOG: "logarithm",
    Op.SQRT: "root",
    Op.RSQRT: "inverse_root",
    Op.SIGMOID: "gate",
    Op.SIN: "sine",
    Op.COS: "cosine",
    Op.WHERE: "choice",
    Op.TO_FLOAT: "as_float",
    Op.TO_INT: "as_int",
    Op.FLOOR: "floored",
    Op.AND: "both_hold",
    Op.OR: "either",
    Op.NOT: "otherwise",
    Op.LT: "is_below",
    Op.LE: "is_up_to",
    Op.EQ: "are_equal",
    Op.NE: "differs",
}
