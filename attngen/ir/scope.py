"""What the names of a spec stand for, and which names a spec may not take."""

from __future__ import annotations

import keyword
from collections.abc import Mapping
from dataclasses import dataclass, field

from attngen.ir.nodes import POSITIONS, SCORE, SIZES, WEIGHT, Expr, Input, Op, make, word
from attngen.ir.operators import BUILTINS
from attngen.source import Span
from attngen.syntax import ast
from attngen.syntax.parse import CLAUSES, KEYWORDS, LITERALS, STATEMENTS

DIST = make(Op.SUB, word("pos"), word("k"))
WORDS: Mapping[str, Expr] = {
    **{name: word(name) for name in POSITIONS + SIZES},
    "dist": DIST,
    "score": SCORE,
    "weight": WEIGHT,
}

#: Names of the emitted call's own arguments, and of ``attngen.load``'s.
CALL_NAMES = {"q", "k", "v", "seed", "layout", "return_lse", "deterministic", "dtype"}
LOAD_NAMES = {"backend", "math"}


@dataclass(frozen=True)
class Value:
    """A const, param, let, or the run-time size that a dim names. ``expr`` None: it was in error."""

    kind: str
    expr: Expr | None
    span: Span


@dataclass(frozen=True)
class Tensor:
    """An input. ``input`` None: its declaration was in error."""

    input: Input | None
    span: Span


@dataclass(frozen=True, eq=False)
class Function:
    """A def, and what the free names of its body meant where it stood. ``scope`` None: it was in error."""

    definition: ast.Def
    scope: Mapping[str, Entity] | None
    prelude: bool = False

    @property
    def span(self) -> Span:
        return self.definition.span

    @property
    def signature(self) -> str:
        return f"{self.definition.name.text}({', '.join(p.text for p in self.definition.params)})"


Entity = Value | Tensor | Function


@dataclass(frozen=True)
class Frame:
    """Where an expression is being built: at the top level, or in a def inlined at ``call``.

    ``names`` holds what the body's free names mean and ``args`` its arguments; errors of a prelude word
    are shown at the call, since the user never wrote its body.
    """

    names: Mapping[str, Entity] = field(default_factory=dict)
    args: Mapping[str, Expr] = field(default_factory=dict)
    call: Span | None = None
    function: Function | None = None


def kind_of(entity: Entity) -> str:
    """``a const``, ``an input``, ... for messages."""
    if isinstance(entity, Tensor):
        return "an input"
    if isinstance(entity, Function):
        return "a function"
    return {"size": "the size of a dim", "let": "a value", "word": "a value"}.get(
        entity.kind, f"a {entity.kind}"
    )


def reserved(name: str) -> str | None:
    """Why no spec may declare ``name``, or None."""
    if name in WORDS:
        return f"'{name}' is a word of the language"
    if name in BUILTINS or name == "bool":
        return f"'{name}' is a built-in function" if name != "bool" else "'bool' is a type"
    if name in CLAUSES or name in STATEMENTS or name in KEYWORDS or name in LITERALS:
        return f"'{name}' is a word of the grammar"
    return unusable(name)


def unusable(name: str) -> str | None:
    """Why the emitted Python could not use ``name``, or None."""
    if keyword.iskeyword(name):
        return f"'{name}' is a Python keyword"
    return "a name does not begin with two underscores" if name.startswith("__") else None
