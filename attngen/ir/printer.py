"""IR → spec text. Parsing and building the text gives the same IR.

    (and (<= 0 (- pos k)) (< (- pos k) 16))   →   mask = 0 <= dist < 16

Shared terms become ``let`` lines, with the spec's own names where it gave any, so the text is never larger
than the DAG; brackets and conversions stand only where the grammar needs them; the text is ASCII.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from attngen.ir.build import DEFAULT_SCALE, prelude
from attngen.ir.nodes import SCORE, SEARCHES, TRUE, AttentionIR, Expr, Op, postorder
from attngen.ir.operators import BUILTINS
from attngen.ir.scope import DIST, WORDS, reserved
from attngen.ir.types import Scalar, Type
from attngen.syntax.docstring import encode_docstring

# How tightly a text binds, loosest first: the levels of the grammar.
_OR, _AND, _NOT, _COMPARE, _SUM, _PRODUCT, _FACTOR, _POWER, _ATOM = range(9)

_CHAINS = {
    Op.ADD: ("+", _SUM),
    Op.SUB: ("-", _SUM),
    Op.MUL: ("*", _PRODUCT),
    Op.DIV: ("/", _PRODUCT),
    Op.FLOORDIV: ("//", _PRODUCT),
    Op.MOD: ("%", _PRODUCT),
    Op.AND: ("and", _AND),
    Op.OR: ("or", _OR),
}
_COMPARISONS = {Op.LT: "<", Op.LE: "<=", Op.EQ: "==", Op.NE: "!="}
_FLIPPED = {Op.LT: ">", Op.LE: ">=", Op.EQ: "==", Op.NE: "!="}
_CALLS = {op for op in Op if op.value in BUILTINS}

# Operands that the language converts to float by itself, if another operand (or the op) is float.
_MIXED = {Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX, Op.CLAMP, Op.WHERE, *_COMPARISONS}
_CONVERTING = {Op.DIV, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS}

_DEEPEST = 30  # a term that nests deeper becomes a let: the grammar's bound is 64
_LONGEST = 90  # and so does a longer one, for the reader's sake
_INLINE_NODES = 200  # print_expr repeats shared terms up to this size

# What a shared term is called if the spec gave it no name.
_FRESH = {
    Op.ADD: "total", Op.SUB: "difference", Op.MUL: "product", Op.DIV: "ratio", Op.FLOORDIV: "quotient",
    Op.MOD: "remainder", Op.NEG: "negated", Op.ABS: "magnitude", Op.MIN: "smaller", Op.MAX: "larger",
    Op.CLAMP: "clamped", Op.EXP: "exponential", Op.LOG: "logarithm", Op.SQRT: "root", Op.RSQRT: "rroot",
    Op.TANH: "squashed", Op.SIGMOID: "gate", Op.SIN: "sine", Op.COS: "cosine", Op.FLOOR: "floored",
    Op.LT: "below", Op.LE: "within", Op.EQ: "same", Op.NE: "different", Op.AND: "both", Op.OR: "either",
    Op.NOT: "inverse", Op.WHERE: "chosen", Op.TO_FLOAT: "number", Op.TO_INT: "rounded", Op.SCORE: "raw_score",
    Op.DOT: "product", Op.FIRST: "place", Op.FIRST_ABOVE: "place_above",
}  # fmt: skip


class _Text(NamedTuple):
    text: str
    level: int
    depth: int


def print_ir(ir: AttentionIR) -> str:
    """The whole variant as spec text, one statement a line, ending in a newline."""
    lines = [f'"""{encode_docstring(ir.doc)}"""'] if ir.doc else []
    lines.append(f"variant {ir.name}")
    lines += [f"const {name}: {_kind(value)} = {_scalar(value)}" for name, value in ir.consts]
    for p in ir.params:
        default = "" if p.default is None else f" = {_scalar(p.default)}"
        lines.append(f"param {p.name}: {p.type.value}{default}")
    for i in ir.inputs:
        flags = " grad" * i.grad + " sorted" * i.sorted
        lines.append(f"input {i.name}: {i.dtype}[{', '.join(map(str, i.dims))}]{flags}")
    printer = _Printer(_taken(ir), ir)
    if ir.scale is not DEFAULT_SCALE:
        lines += printer.clause("scale", ir.scale)
    lines += printer.scores(ir.score)
    if ir.mask is not TRUE:
        lines += printer.clause("mask", ir.mask)
    lines += printer.normalization(ir)
    if ir.weight is not None:
        lines += printer.clause("weight", ir.weight)
    if ir.sink is not None:
        lines += printer.clause("sink", ir.sink)
    if ir.dropout is not None:
        lines += printer.clause("dropout", ir.dropout)
    return "\n".join(lines) + "\n"


def print_clauses(ir: AttentionIR) -> dict[str, str]:
    """Each clause by its key: "scale", "score[0]", ..., "mask", and the others where they stand.

    A text ends in the clause's own line. Before it stand, one a line, the lets that it needs: the scores in
    order (a let of an earlier score is not repeated), every other clause on its own.
    """
    printer = _Printer(_taken(ir), ir)
    texts = {"scale": printer.alone("scale", ir.scale)}
    for index, lines in enumerate(printer.score_groups(ir.score)):
        texts[f"score[{index}]"] = "\n".join(lines)
    texts["mask"] = printer.alone("mask", ir.mask)
    if not ir.is_softmax:
        texts["normalize"] = "\n".join(printer.unbound(lambda: printer.normalization(ir)))
    if ir.weight is not None:
        texts["weight"] = printer.alone("weight", ir.weight)
    if ir.sink is not None:
        texts["sink"] = printer.alone("sink", ir.sink)
    if ir.dropout is not None:
        texts["dropout"] = printer.alone("dropout", ir.dropout)
    return texts


def print_expr(expr: Expr, ir: AttentionIR | None = None) -> str:
    """One expression as spec text: one line, or, where sharing makes that long, its lets before it.

    ``ir`` gives the names of lets; without it they are fresh.
    """
    printer = _Printer(_taken(ir) if ir else set(WORDS), ir, (expr,))
    if _tree_size(expr) <= _INLINE_NODES:
        printer.lets.clear()
    return "\n".join(printer.lines("", expr))


def _tree_size(root: Expr) -> int:
    sizes: dict[Expr, int] = {}
    for node in postorder(root):
        sizes[node] = 1 + sum(sizes[a] for a in node.args)
    return sizes[root]


def _taken(ir: AttentionIR) -> set[str]:
    names = {*WORDS, *prelude(), *(n for n, _ in ir.consts), *(p.name for p in ir.params)}
    for i in ir.inputs:
        names |= {i.name, *(d for d in i.dims if isinstance(d, str))}
    return names


def _kind(value: Scalar) -> str:
    return type(value).__name__


def _scalar(value: Scalar) -> str:
    return repr(value)  # Python's inf, True, 1e-30 and -0.0 are the language's


class _Printer:
    """The lets chosen for one IR, and the text of its clauses with them."""

    def __init__(self, taken: set[str], ir: AttentionIR | None, roots: Sequence[Expr] | None = None) -> None:
        self.taken = set(taken)
        self.numbers: dict[str, int] = {}  # the last one tried of each stem
        self.given = dict(ir.names) if ir else {}
        self.lets: dict[Expr, str] = {}
        self.bound: dict[Expr, str] = {}
        self.current: Expr | None = None  # what ``score`` means at this line
        self.root: Expr | None = None
        if roots is None:
            assert ir is not None
            self._choose_lets(ir)
        else:
            self._count([(root, None) for root in roots])

    # --- which terms become lets -----------------------------------------------------------------------

    def _choose_lets(self, ir: AttentionIR) -> None:
        roots: list[tuple[Expr, Expr | None]] = [(ir.scale, None)]
        current = SCORE
        for score in ir.score:
            roots.append((score, current))
            current = score
        roots += [(clause, None) for clause in ir.clauses[1 + len(ir.score) :]]
        self._count(roots)

    def _count(self, roots: Sequence[tuple[Expr, Expr | None]]) -> None:
        """Name what is used twice, what the spec named, and a score read after it was replaced."""
        uses: dict[Expr, int] = {}
        order: list[Expr] = []
        stale = False
        for root, current in roots:
            stack = [(root, False)]
            while stack:
                node, done = stack.pop()
                if done:
                    order.append(node)
                    continue
                if _is_current(node, current):
                    continue
                stale |= node is SCORE and current is not None
                uses[node] = uses.get(node, 0) + 1
                if uses[node] == 1:
                    stack.append((node, True))
                    stack.extend((part, False) for part in reversed(_parts(node)))
        if stale:
            self._name(SCORE)
        for node in order:
            if not _is_trivial(node) and (uses[node] > 1 or node in self.given):
                self._name(node)

    def _name(self, node: Expr) -> str:
        if node not in self.lets:
            given = self.given.get(node)
            stem = given or (f"{node.value}_at" if node.op is Op.LOAD else _FRESH[node.op])
            name, number = stem, self.numbers.get(stem, 1)
            while name in self.taken or reserved(name):
                number += 1
                name = f"{stem}_{number}"
            self.taken.add(name)
            self.numbers[stem] = number
            self.lets[node] = name
        return self.lets[node]

    # --- clauses ---------------------------------------------------------------------------------------

    def clause(self, name: str, root: Expr) -> list[str]:
        self.current = None
        return self.lines(f"{name} = ", root)

    def normalization(self, ir: AttentionIR) -> list[str]:
        """The line of ``normalize`` and what it needs; none for the softmax."""
        if ir.bias is None:
            return [] if ir.is_softmax else [f"normalize = {ir.normalize.value}"]
        self.current = None
        *lets, last = self.lines(f"normalize = {ir.normalize.value}(", ir.bias)
        return [*lets, f"{last})"]

    def alone(self, name: str, root: Expr) -> str:
        return "\n".join(self.unbound(lambda: self.clause(name, root)))

    def unbound(self, lines: Callable[[], list[str]]) -> list[str]:
        """What ``lines`` prints where no let stands before it."""
        kept, self.bound = self.bound, {}
        printed = lines()
        self.bound = kept
        return printed

    def scores(self, scores: Iterable[Expr]) -> list[str]:
        return [line for group in self.score_groups(scores) for line in group]

    def score_groups(self, scores: Iterable[Expr]) -> list[list[str]]:
        groups: list[list[str]] = []
        self.current = SCORE
        for score in scores:
            first = [] if groups or SCORE not in self.lets else [f"let {self.lets[SCORE]} = score"]
            groups.append(first + self.lines("score = ", score))
            if first:
                self.bound[SCORE] = self.lets[SCORE]
            self.current = score
        self.current = None
        return groups

    def lines(self, head: str, root: Expr) -> list[str]:
        """The let lines that ``root`` needs and that no earlier line holds, and ``head`` with its text."""
        root = _unconverted(root) if head and not head.startswith("mask") else root
        lines: list[str] = []
        texts: dict[Expr, _Text] = {}
        stack = [(root, False)]
        self.root = root
        while stack:
            node, ready = stack.pop()
            if node in texts:
                continue
            known = self._known(node)
            if known is not None:
                texts[node] = known
            elif not ready:
                stack.append((node, True))
                stack.extend((part, False) for part in reversed(self._operands(node)))
            else:
                texts[node] = self._bind(node, self._text(node, texts), lines)
        return [*lines, head + texts[root].text]

    def _known(self, node: Expr) -> _Text | None:
        if _is_current(node, self.current):
            return _Text("score", _ATOM, 1)
        if node in self.bound:
            return _Text(self.bound[node], _ATOM, 1)
        return None

    def _bind(self, node: Expr, text: _Text, lines: list[str]) -> _Text:
        deep = (text.depth > _DEEPEST or len(text.text) > _LONGEST) and not _is_trivial(node)
        if node is SCORE or not (node in self.lets or (deep and node is not self.root)):
            return text
        name = self.bound[node] = self._name(node)
        lines.append(f"let {name} = {text.text}")
        return _Text(name, _ATOM, 1)

    # --- expressions -----------------------------------------------------------------------------------

    def _spine(self, node: Expr) -> list[Expr]:
        """The nodes of one chain, ``a + b - c`` from its outermost, that print without brackets."""
        chain = [node]
        level = _CHAINS[node.op][1]
        while True:
            left = chain[-1].args[0]
            inner = _chain_level(left) == level
            if not inner or left in self.lets or left in self.bound or _is_current(left, self.current):
                return chain
            chain.append(left)

    def _operands(self, node: Expr) -> tuple[Expr, ...]:
        """The terms whose text ``node``'s text holds."""
        if _chain_level(node) is None:
            return _parts(node)
        chain = self._spine(node)
        return (_parts(chain[-1])[0], *(_parts(link)[1] for link in reversed(chain)))

    def _text(self, node: Expr, texts: dict[Expr, _Text]) -> _Text:
        parts = [texts[p] for p in self._operands(node)]
        depth = 2 + max((p.depth for p in parts), default=-1)
        level = _chain_level(node)
        if level is not None:
            signs = [_CHAINS[link.op][0] for link in reversed(self._spine(node))]
            words = [_wrap(parts[0], level)]
            for sign, part in zip(signs, parts[1:], strict=True):
                words += [sign, _wrap(part, level + 1)]
            return _Text(" ".join(words), level, depth)
        return _Text(*_simple(node, parts), depth)


def _simple(node: Expr, parts: list[_Text]) -> tuple[str, int]:
    """The text of a node that is no chain, and how tightly it binds."""
    if node is DIST:
        return "dist", _ATOM
    if node.op is Op.CONST:
        assert not isinstance(node.value, str | None)
        text = _scalar(node.value)
        return text, _FACTOR if text.startswith("-") else _ATOM
    if node.op in (Op.WORD, Op.SIZE, Op.PARAM):
        return str(node.value), _ATOM
    if node.op in (Op.SCORE, Op.WEIGHT):
        return str(node.op.value), _ATOM
    if node.op in SEARCHES:
        *row, value = (p.text for p in parts)
        at = f"[{', '.join(row)}]" if row else ""
        return f"first({node.value}{at} {'>=' if node.op is Op.FIRST else '>'} {value})", _ATOM
    if node.op in (Op.LOAD, Op.VECTOR):
        return str(node.value) + (f"[{', '.join(p.text for p in parts)}]" if parts else ""), _ATOM
    if node.op is Op.MUL:
        return f"{_wrap(parts[0], _ATOM)} ** 2", _POWER
    if node.op is Op.NEG:
        return f"-{_wrap(parts[0], _FACTOR)}", _FACTOR
    if node.op is Op.NOT:
        return f"not {_wrap(parts[0], _NOT)}", _NOT
    if node.op is Op.AND:
        low, middle, high = (_wrap(p, _SUM) for p in parts)
        first, second = (_COMPARISONS[side.op] for side in node.args)
        return f"{low} {first} {middle} {second} {high}", _COMPARE
    if node.op in _COMPARISONS:
        left, right = (_wrap(p, _SUM) for p in parts)
        if node.args[0].op is Op.CONST and node.args[1].op is not Op.CONST and node.op in (Op.LT, Op.LE):
            return f"{right} {_FLIPPED[node.op]} {left}", _COMPARE
        return f"{left} {_COMPARISONS[node.op]} {right}", _COMPARE
    assert node.op in _CALLS, node.op
    return f"{node.op.value}({', '.join(p.text for p in parts)})", _ATOM


def _wrap(part: _Text, level: int) -> str:
    return part.text if part.level >= level else f"({part.text})"


def _is_current(node: Expr, current: Expr | None) -> bool:
    return node is current and node.op is not Op.CONST


def _is_trivial(node: Expr) -> bool:
    """Whether naming the term would not make the text shorter."""
    if node.op is Op.NEG:
        return node.args[0] is DIST or node.args[0].op in (Op.WORD, Op.PARAM, Op.SIZE)
    if node.op is Op.VECTOR:
        return True  # it has no name of its own: it stands inside dot(x, y)
    return not node.args or node is DIST or (node.op is Op.LOAD and all(not a.args for a in node.args))


def _is_square(node: Expr) -> bool:
    return node.op is Op.MUL and node.args[0] is node.args[1]


def _is_interval(node: Expr) -> bool:
    """``a <= b < c``."""
    if node.op is not Op.AND:
        return False
    first, second = node.args
    ordered = first.op in (Op.LT, Op.LE) and second.op in (Op.LT, Op.LE)
    return ordered and first.args[1] is second.args[0]


def _chain_level(node: Expr) -> int | None:
    if node is DIST or node.op not in _CHAINS or _is_square(node) or _is_interval(node):
        return None
    return _CHAINS[node.op][1]


def _unconverted(node: Expr) -> Expr:
    return node.args[0] if node.op is Op.TO_FLOAT else node


def _parts(node: Expr) -> tuple[Expr, ...]:
    """The operands as printed, without the conversions to float that the language makes by itself."""
    if node is DIST:
        return ()
    if _is_square(node):
        return node.args[:1]
    if _is_interval(node):
        low, middle = node.args[0].args
        high = node.args[1].args[1]
        if middle.type is Type.FLOAT and middle.op is not Op.TO_FLOAT:
            return _unconverted(low), middle, _unconverted(high)
        return low, middle, high
    if node.op in _CONVERTING:
        return tuple(map(_unconverted, node.args))
    if node.op not in _MIXED:
        return node.args
    kept = node.args[:1] if node.op is Op.WHERE else ()
    numbers = node.args[len(kept) :]
    if all(a.op is Op.TO_FLOAT for a in numbers):  # one conversion must stay, or the others would be ints
        return (*kept, numbers[0], *map(_unconverted, numbers[1:]))
    return (*kept, *map(_unconverted, numbers))
