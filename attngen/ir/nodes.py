"""Expressions and the attention variant that they make up.

An ``Expr`` is interned: building the same expression twice gives the same object, so ``is`` and the
default hash compare structure, shared terms are shared by construction, and a pass is a loop over
``postorder`` with a dict. Every node is type-checked when it is made; a ``TypeError`` from here is a
defect of the compiler (``ir.build`` has already reported the user's mistakes with their place).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import TYPE_CHECKING
from weakref import WeakValueDictionary

from attngen.ir.types import Scalar, Type, type_of

if TYPE_CHECKING:
    from attngen.source import Span


class Op(Enum):
    """What a node computes. The value is its name in the printed IR."""

    # Leaves. ``Expr.value`` holds the constant, or the name.
    CONST = "const"
    WORD = "word"  # q, k, pos, b, h, h_kv and the sizes
    SIZE = "size"  # a run-time size that an input's declaration names
    PARAM = "param"
    SCORE = "score"  # scale * dot(Q[b, h, q], K[b, h_kv, k])
    WEIGHT = "weight"  # what the normalisation makes of the final score, before dropout
    LOAD = "load"  # an input's element; ``value`` is the input, ``args`` its indices
    VECTOR = "vector"  # an input's elements along its last dimension; ``args`` are the other indices

    # vector, vector -> float
    DOT = "dot"  # the sum of the elementwise products; a score's further product of two matrices

    # For the analyses and the plan alone: the first index at which a row of a sorted input is at least, or
    # above, a value; ``value`` is the input, ``args`` the row's indices and the value. As an index is kept
    # inside its dimension, the row goes on at both ends: far below 0 where its first entry is there already,
    # far above its length where none is.
    FIRST = "first"
    FIRST_ABOVE = "first above"

    # int -> int and float -> float
    ADD = "+"
    SUB = "-"
    MUL = "*"
    NEG = "neg"
    ABS = "abs"
    MIN = "min"
    MAX = "max"
    CLAMP = "clamp"  # clamp(x, low, high)

    # int -> int, rounding toward minus infinity; x // 0 = x % 0 = 0
    FLOORDIV = "//"
    MOD = "%"

    # float -> float
    DIV = "/"
    EXP = "exp"
    LOG = "log"
    SQRT = "sqrt"
    RSQRT = "rsqrt"
    TANH = "tanh"
    SIGMOID = "sigmoid"
    SIN = "sin"
    COS = "cos"
    FLOOR = "floor"

    # a, a -> bool (a > b is LT(b, a)); EQ and NE compare bools too
    LT = "<"
    LE = "<="
    EQ = "=="
    NE = "!="

    # bool
    AND = "and"
    OR = "or"
    NOT = "not"

    WHERE = "where"  # where(condition, chosen, other)
    TO_FLOAT = "float"  # int -> float
    TO_INT = "int"  # float -> int, toward zero, saturating at int32's bounds; NaN -> 0

    __hash__ = object.__hash__  # members are one of a kind; Enum's own is Python and slow


#: Words that name the position of one score, and the sizes of the call.
POSITIONS = ("b", "h", "h_kv", "q", "k", "pos")
SIZES = ("batch", "heads", "kv_heads", "q_len", "k_len", "head_dim", "v_dim")

#: The size that each of these words stays below.
RUNS_OVER = {"b": "batch", "h": "heads", "h_kv": "kv_heads", "q": "q_len", "k": "k_len", "pos": "k_len"}

#: What finds a place in a sorted input, and what it gives beyond the row: farther out than every length.
SEARCHES = (Op.FIRST, Op.FIRST_ABOVE)
BEYOND = 2**30

#: Corners of a tile: words that only the analyses and the plan may use, never a spec.
CORNERS = ("q_first", "q_last", "k_first", "k_last")

_SAME_NUMBERS = {Op.ADD, Op.SUB, Op.MUL, Op.NEG, Op.ABS, Op.MIN, Op.MAX, Op.CLAMP}
_INTS = {Op.FLOORDIV, Op.MOD}
_FLOATS = {
    Op.DIV,
    Op.EXP,
    Op.LOG,
    Op.SQRT,
    Op.RSQRT,
    Op.TANH,
    Op.SIGMOID,
    Op.SIN,
    Op.COS,
    Op.FLOOR,
}
_ORDERINGS = {Op.LT, Op.LE}
_EQUALITIES = {Op.EQ, Op.NE}
_BOOLS = {Op.AND, Op.OR, Op.NOT}

ARITY: dict[Op, int] = {
    **dict.fromkeys((Op.CONST, Op.WORD, Op.SIZE, Op.PARAM, Op.SCORE, Op.WEIGHT), 0),
    **dict.fromkeys((Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX, Op.FLOORDIV, Op.MOD, Op.DIV), 2),
    **dict.fromkeys((Op.LT, Op.LE, Op.EQ, Op.NE, Op.AND, Op.OR), 2),
    **dict.fromkeys((Op.NEG, Op.ABS, Op.NOT, Op.TO_FLOAT, Op.TO_INT), 1),
    **dict.fromkeys(_FLOATS - {Op.DIV}, 1),
    Op.DOT: 2,
    Op.CLAMP: 3,
    Op.WHERE: 3,
}


@dataclass(frozen=True, eq=False)
class Expr:
    """One node of an interned expression DAG. Make it with ``make`` or the helpers below it."""

    op: Op
    type: Type
    args: tuple[Expr, ...] = ()
    value: Scalar | str | None = None

    def __repr__(self) -> str:
        head = self.op.value if self.value is None else f"{self.op.value}:{self.value!r}"
        return f"({' '.join([head, *map(repr, self.args)])})" if self.args else head


_interned: WeakValueDictionary[tuple[object, ...], Expr] = WeakValueDictionary()


def _intern(op: Op, kind: Type, args: tuple[Expr, ...], value: Scalar | str | None) -> Expr:
    # repr tells 0.0 from -0.0, NaN from NaN (equal), and 1 from 1.0 and True.
    key = (op, kind, tuple(map(id, args)), repr(value))
    found = _interned.get(key)
    if found is None:
        found = _interned[key] = Expr(op, kind, args, value)
    return found


def make(op: Op, *args: Expr) -> Expr:
    """The interned node ``op(*args)``, for every op that is neither a leaf nor LOAD."""
    if op not in ARITY or ARITY[op] == 0:
        raise TypeError(f"{op} is not made by make()")
    if len(args) != ARITY[op]:
        raise TypeError(f"{op.value} takes {ARITY[op]} operands, got {len(args)}")
    return _intern(op, _result_type(op, [a.type for a in args]), args, None)


def _result_type(op: Op, types: list[Type]) -> Type:
    alike = len(set(types)) == 1
    if op is Op.WHERE:
        if types[0] is Type.BOOL and types[1] is types[2] is not Type.VECTOR:
            return types[1]
    elif op in _SAME_NUMBERS:
        if alike and types[0] in (Type.INT, Type.FLOAT):
            return types[0]
    elif op in _INTS:
        if alike and types[0] is Type.INT:
            return Type.INT
    elif op in _FLOATS:
        if alike and types[0] is Type.FLOAT:
            return Type.FLOAT
    elif op in _ORDERINGS:
        if alike and types[0] in (Type.INT, Type.FLOAT):
            return Type.BOOL
    elif op in _EQUALITIES:
        if alike and types[0] is not Type.VECTOR:
            return Type.BOOL
    elif op in _BOOLS:
        if alike and types[0] is Type.BOOL:
            return Type.BOOL
    elif (op is Op.DOT and types == [Type.VECTOR, Type.VECTOR]) or (
        op is Op.TO_FLOAT and types == [Type.INT]
    ):
        return Type.FLOAT
    elif op is Op.TO_INT and types == [Type.FLOAT]:
        return Type.INT
    raise TypeError(f"{op.value} does not take {', '.join(t.value for t in types)}")


def const(value: Scalar) -> Expr:
    return _intern(Op.CONST, type_of(value), (), value)


def word(name: str) -> Expr:
    """A position, a size, or (for analyses) a tile's corner. All are ints."""
    if name not in POSITIONS + SIZES + CORNERS:
        raise TypeError(f"no word {name!r}")
    return _intern(Op.WORD, Type.INT, (), name)


def size(name: str) -> Expr:
    return _intern(Op.SIZE, Type.INT, (), name)


def param(name: str, kind: Type) -> Expr:
    return _intern(Op.PARAM, kind, (), name)


def load(name: str, kind: Type, indices: tuple[Expr, ...]) -> Expr:
    """The element of input ``name`` at ``indices`` (ints), read as ``kind``."""
    if any(i.type is not Type.INT for i in indices):
        raise TypeError("an index is an int")
    return _intern(Op.LOAD, kind, indices, name)


def vector(name: str, indices: tuple[Expr, ...]) -> Expr:
    """The row of input ``name`` at ``indices`` (ints, of all its dims but the last)."""
    if any(i.type is not Type.INT for i in indices):
        raise TypeError("an index is an int")
    return _intern(Op.VECTOR, Type.VECTOR, indices, name)


def first(op: Op, name: str, row: tuple[Expr, ...], value: Expr) -> Expr:
    """FIRST or FIRST_ABOVE: where the sorted input ``name`` reaches ``value``; ``row``: its other indices."""
    if op not in SEARCHES or any(e.type is not Type.INT for e in (*row, value)):
        raise TypeError("first() takes FIRST or FIRST_ABOVE, and ints")
    return _intern(op, Type.INT, (*row, value), name)


SCORE = _intern(Op.SCORE, Type.FLOAT, (), None)
WEIGHT = _intern(Op.WEIGHT, Type.FLOAT, (), None)
TRUE = const(True)
FALSE = const(False)


def remake(node: Expr, args: tuple[Expr, ...]) -> Expr:
    """``node`` with other operands (itself where they are the same)."""
    if args == node.args:
        return node
    if node.op in SEARCHES:
        return first(node.op, str(node.value), args[:-1], args[-1])
    if node.op is Op.VECTOR:
        return vector(str(node.value), args)
    return load(str(node.value), node.type, args) if node.op is Op.LOAD else make(node.op, *args)


def postorder(*roots: Expr) -> list[Expr]:
    """Every node under ``roots`` once, operands before users. Iterative: depth is no limit."""
    seen: set[Expr] = set()
    order: list[Expr] = []
    stack: list[tuple[Expr, bool]] = [(root, False) for root in reversed(roots)]
    while stack:
        node, ready = stack.pop()
        if ready:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((arg, False) for arg in reversed(node.args) if arg not in seen)
    return order


def rewrite(root: Expr, rule: Callable[[Expr], Expr]) -> Expr:
    """Rebuild ``root`` bottom-up, applying ``rule`` to each node whose operands are rewritten."""
    new: dict[Expr, Expr] = {}
    for node in postorder(root):
        new[node] = rule(remake(node, tuple(new[a] for a in node.args)))
    return new[root]


def substitute(root: Expr, mapping: Mapping[Expr, Expr]) -> Expr:
    """``root`` with each key of ``mapping`` (a node) replaced by its value."""
    new: dict[Expr, Expr] = {}
    for node in postorder(root):
        if node in mapping:
            new[node] = mapping[node]
        else:
            new[node] = remake(node, tuple(new[a] for a in node.args))
    return new[root]


def conjuncts(root: Expr) -> list[Expr]:
    """The conditions that ``root`` joins with ``and``, itself where it is no such."""
    found, waiting = [], [root]
    while waiting:
        node = waiting.pop()
        if node.op is Op.AND:
            waiting += reversed(node.args)
        else:
            found.append(node)
    return found


def leaves(*roots: Expr, op: Op) -> Iterator[Expr]:
    """The nodes of one kind under ``roots``, each once, in postorder."""
    return (node for node in postorder(*roots) if node.op is op)


def mentions(root: Expr, *words: str) -> bool:
    """Whether ``root`` reads any of these words."""
    return any(node.value in words for node in leaves(root, op=Op.WORD))


@dataclass(frozen=True)
class Param:
    """A run-time scalar. ``default`` None means that the call must give it."""

    name: str
    type: Type
    default: Scalar | None = None


@dataclass(frozen=True)
class Input:
    """A tensor that the score, mask, scale or sink reads.

    Each dim is a positive int, a size word, or a name bound to a run-time size. Any dim of the tensor
    given at the call may also be 1, and then broadcasts. ``()`` is a scalar tensor.
    """

    name: str
    dtype: str
    dims: tuple[int | str, ...] = ()
    grad: bool = False
    sorted: bool = False


class Normalize(Enum):
    """How the scores of a row become weights. The value is its name in a spec."""

    SOFTMAX = "softmax"
    SIGMOID = "sigmoid"  # sigmoid(score + bias), each score by itself
    RELU = "relu"  # max(score, 0), each score by itself

    __hash__ = object.__hash__


@dataclass(frozen=True)
class AttentionIR:
    """One attention variant, every name resolved, consts replaced by their values.

    ``score`` holds one expression per ``score = ...`` statement, each written in terms of the SCORE leaf
    (so the last one is the score that the softmax sees; the earlier ones are its subterms). ``bias`` is the
    sigmoid's and stands with no other normalisation; ``weight`` is written in terms of the WEIGHT leaf, None
    where the spec leaves the weights as they are. ``names`` says what the spec called a subexpression
    (``let``), for readable output; ``spans`` says where a part stands: keys are "scale", "mask",
    "normalize", "weight", "sink", "dropout", "score[0]", ..., "input NAME", "param NAME", "variant"; and
    ``reads`` where the indices stand with which an input's element is first read. None of the three takes
    part in equality.
    """

    name: str
    scale: Expr
    score: tuple[Expr, ...] = ()
    mask: Expr = TRUE
    normalize: Normalize = Normalize.SOFTMAX
    bias: Expr | None = None
    weight: Expr | None = None
    sink: Expr | None = None
    dropout: Expr | None = None
    params: tuple[Param, ...] = ()
    inputs: tuple[Input, ...] = ()
    consts: tuple[tuple[str, Scalar], ...] = ()
    doc: str = ""
    names: Mapping[Expr, str] = field(default_factory=dict, compare=False)
    spans: Mapping[str, Span] = field(default_factory=dict, compare=False)
    reads: Mapping[Expr, tuple[Span, ...]] = field(default_factory=dict, compare=False)

    @property
    def final_score(self) -> Expr:
        return self.score[-1] if self.score else SCORE

    @property
    def is_softmax(self) -> bool:
        """Whether the weights of a row share a denominator, and so have a log-sum-exp."""
        return self.normalize is Normalize.SOFTMAX

    @property
    def has_products(self) -> bool:
        """Whether the score holds matrix products beside q.k."""
        return any(leaves(self.final_score, op=Op.DOT))

    @property
    def is_plain(self) -> bool:
        """A softmax of scores over one matrix product, q.k, whose weights meet V as they are."""
        return self.is_softmax and self.weight is None and not self.has_products

    @property
    def clauses(self) -> tuple[Expr, ...]:
        """Every expression of the variant: what a pass over all of it walks."""
        optional = tuple(e for e in (self.bias, self.weight, self.sink, self.dropout) if e is not None)
        return (self.scale, *self.score, self.mask, *optional)

    def input(self, name: str) -> Input:
        return next(i for i in self.inputs if i.name == name)
