"""What a spec says, before names and types: one frozen node for each construct, each with its place.

Chains of one precedence level are n-ary, so that a sum of 300 terms has depth 1. ``parse`` bounds the
depth of what it builds (``MAX_DEPTH``), so that a recursive walk over these nodes is always safe.
"""

from __future__ import annotations

from dataclasses import dataclass

from attngen.source import Span

MAX_DEPTH = 64


@dataclass(frozen=True)
class Ident:
    """A name where it stands."""

    text: str
    span: Span


@dataclass(frozen=True)
class Literal:
    """``4096``, ``1e-3``, ``inf``, ``True``."""

    value: bool | int | float
    span: Span


@dataclass(frozen=True)
class Name:
    """``dist``."""

    name: str
    span: Span


@dataclass(frozen=True)
class Call:
    """``softcap(score, cap)``."""

    function: Ident
    args: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True)
class Index:
    """``table[h, dist]``."""

    base: Ident
    indices: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True)
class Unary:
    """``-x``, ``+x``, ``not x``."""

    op: str
    operand: Expr
    span: Span


@dataclass(frozen=True)
class Power:
    """``x ** 2``."""

    base: Expr
    exponent: Expr
    span: Span


@dataclass(frozen=True)
class Arithmetic:
    """``a + b - c`` (ops ``+ -``) or ``a * b // c`` (ops ``* / // %``), from the left."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]
    span: Span


@dataclass(frozen=True)
class Compare:
    """``a <= b < c``: every neighbouring pair holds."""

    operands: tuple[Expr, ...]
    ops: tuple[str, ...]
    span: Span


@dataclass(frozen=True)
class Logic:
    """``a and b and c`` or ``a or b or c``."""

    op: str
    operands: tuple[Expr, ...]
    span: Span


@dataclass(frozen=True)
class Conditional:
    """``chosen if condition else other``."""

    chosen: Expr
    condition: Expr
    other: Expr
    span: Span


Expr = Literal | Name | Call | Index | Unary | Power | Arithmetic | Compare | Logic | Conditional


@dataclass(frozen=True)
class Const:
    """``const window: int = 4096``."""

    name: Ident
    type: Ident
    value: Expr
    span: Span


@dataclass(frozen=True)
class Param:
    """``param cap: float = 50.0``; ``default`` None where none is given."""

    name: Ident
    type: Ident
    default: Expr | None
    span: Span


@dataclass(frozen=True)
class Input:
    """``input doc: int32[batch, k_len] sorted``."""

    name: Ident
    dtype: Ident
    dims: tuple[Expr, ...]
    flags: tuple[Ident, ...]
    span: Span


@dataclass(frozen=True)
class Let:
    """``let qx = q % 64``."""

    name: Ident
    value: Expr
    span: Span


@dataclass(frozen=True)
class Def:
    """``def softcap(x, c) = c * tanh(x / c)``."""

    name: Ident
    params: tuple[Ident, ...]
    body: Expr
    span: Span


@dataclass(frozen=True)
class Clause:
    """``score = ...``, ``mask = ...``, ``normalize = ...`` or another of ``parse.CLAUSES``."""

    name: Ident
    value: Expr
    span: Span


Statement = Const | Param | Input | Let | Def | Clause


@dataclass(frozen=True)
class Spec:
    """One variant. ``doc`` is its docstring without the common indentation ("" where there is none)."""

    name: Ident
    doc: str
    statements: tuple[Statement, ...]
