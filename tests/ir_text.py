"""IR expressions from text, and text pairs from fixture files, for tests of the analyses.

The spec language is Python's expression grammar, so Python parses it. Names: the words, ``score``, a tile's
corners; ``n m`` are int params, ``x y`` float params, ``p r`` bool params; ``lens[...]`` and other names
with an index are int inputs, but ``bias slopes`` are float and ``keep`` is bool.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

from attngen.ir.nodes import (
    CORNERS,
    POSITIONS,
    SCORE,
    SIZES,
    Expr,
    Op,
    const,
    load,
    make,
    param,
    vector,
    word,
)
from attngen.ir.types import Type

FIXTURES = Path(__file__).parent / "fixtures"

PARAMS = {
    **dict.fromkeys(("n", "m", "window"), Type.INT),
    **dict.fromkeys(("x", "y", "cap"), Type.FLOAT),
    **dict.fromkeys(("p", "r"), Type.BOOL),
}
INPUTS = {**dict.fromkeys(("bias", "slopes", "a"), Type.FLOAT), "keep": Type.BOOL}

_BINARY: dict[type[ast.AST], Op] = {
    ast.Add: Op.ADD,
    ast.Sub: Op.SUB,
    ast.Mult: Op.MUL,
    ast.Div: Op.DIV,
    ast.FloorDiv: Op.FLOORDIV,
    ast.Mod: Op.MOD,
}
_COMPARE: dict[type[ast.AST], Op] = {
    ast.Lt: Op.LT,
    ast.LtE: Op.LE,
    ast.Eq: Op.EQ,
    ast.NotEq: Op.NE,
}


def expr(text: str) -> Expr:
    """The IR of ``text``, node for node: nothing is folded but the sign of a number."""
    return _build(ast.parse(text.strip(), mode="eval").body)


def _build(tree: ast.expr) -> Expr:
    match tree:
        case ast.Constant(value=bool() | int() | float() as value):
            return const(value)
        case ast.Name(id="dist"):
            return make(Op.SUB, word("pos"), word("k"))
        case ast.Name(id="score"):
            return SCORE
        case ast.Name(id="inf"):
            return const(float("inf"))
        case ast.Name(id=name) if name in POSITIONS + SIZES + CORNERS:
            return word(name)
        case ast.Name(id=name):
            return param(name, PARAMS[name])
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Tuple(elts=elements)):
            return load(name, INPUTS.get(name, Type.INT), tuple(map(_build, elements)))
        case ast.Subscript(value=ast.Name(id=name), slice=index):
            return load(name, INPUTS.get(name, Type.INT), (_build(index),))
        case ast.IfExp(test=test, body=body, orelse=other):
            return make(Op.WHERE, _build(test), _build(body), _build(other))
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return const(-value)
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return make(Op.NEG, _build(inner))
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return make(Op.NOT, _build(inner))
        case ast.BinOp(left=left, op=op, right=right):
            return make(_BINARY[type(op)], _build(left), _build(right))
        case ast.BoolOp(op=op, values=values):
            return _chain(Op.AND if isinstance(op, ast.And) else Op.OR, [_build(v) for v in values])
        case ast.Compare(left=left, ops=ops, comparators=others):
            terms = [_build(left), *map(_build, others)]
            pairs = zip(terms, ops, terms[1:], strict=False)
            return _chain(Op.AND, [_comparison(one, op, two) for one, op, two in pairs])
        case ast.Call(func=ast.Name(id="dot"), args=args):
            rows = [_build(arg) for arg in args]
            return make(Op.DOT, *(vector(str(row.value), row.args) for row in rows))
        case ast.Call(func=ast.Name(id=name), args=args):
            return make(Op(name), *map(_build, args))
    raise ValueError(ast.dump(tree))


def _comparison(left: Expr, op: ast.cmpop, right: Expr) -> Expr:
    if isinstance(op, ast.Gt | ast.GtE):
        return make(Op.LT if isinstance(op, ast.Gt) else Op.LE, right, left)
    return make(_COMPARE[type(op)], left, right)


def _chain(op: Op, terms: list[Expr]) -> Expr:
    result = terms[0]
    for term in terms[1:]:
        result = make(op, result, term)
    return result


def pairs(*path: str) -> Iterator[tuple[str, str]]:
    """The ``before -> after`` lines of a fixture file; ``#`` starts a comment."""
    for line in FIXTURES.joinpath(*path).read_text(encoding="utf-8").splitlines():
        text = line.split("#")[0].strip()
        if text:
            before, after = text.split(" -> ")
            yield before.strip(), after.strip()


_SYMBOL = {Op.FLOORDIV: "//", Op.MOD: "%", Op.DIV: "/"}


def show(node: Expr | None) -> str:
    """Text that ``expr`` reads back, for messages: every operation in parentheses."""
    if node is None:
        return "None"
    if node is SCORE:
        return "score"
    parts = [show(a) for a in node.args]
    if node.op in (Op.LOAD, Op.VECTOR):
        return f"{node.value}[{', '.join(parts)}]"
    if not parts:
        return str(node.value)
    if len(parts) == 2 and node.op not in (Op.MIN, Op.MAX, Op.DOT):
        return f"({parts[0]} {node.op.value} {parts[1]})"
    if node.op in (Op.NEG, Op.NOT):
        return f"(-{parts[0]})" if node.op is Op.NEG else f"(not {parts[0]})"
    return f"{node.op.value}({', '.join(parts)})"
