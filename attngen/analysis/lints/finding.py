"""One warning of a spec, and the clauses that it may be about."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from attngen.ir.nodes import AttentionIR, Expr
from attngen.ir.printer import print_expr
from attngen.source import Span

_WIDEST = 60  # columns of an expression that a message quotes


@dataclass(frozen=True)
class Lint:
    """One warning. ``code`` names its kind for good; ``span`` is None where no line is to blame."""

    code: str
    message: str
    span: Span | None = None

    def __str__(self) -> str:
        place = f"{self.span.line}:{self.span.column}: " if self.span else ""
        return f"{place}warning: {self.message} [{self.code}]"


def clauses(ir: AttentionIR) -> Iterator[tuple[str, Expr]]:
    """Every clause and its key in ``ir.spans``, the innermost first."""
    yield "scale", ir.scale
    for number, root in enumerate(ir.score):
        yield f"score[{number}]", root
    yield "mask", ir.mask
    if ir.bias is not None:
        yield "normalize", ir.bias
    if ir.weight is not None:
        yield "weight", ir.weight
    if ir.sink is not None:
        yield "sink", ir.sink
    if ir.dropout is not None:
        yield "dropout", ir.dropout


def index_span(ir: AttentionIR, node: Expr, axis: int, clause: str) -> Span | None:
    """Where an index of an element stands that ``clause`` reads; the clause where that is not known."""
    return ir.reads[node][axis] if node in ir.reads else ir.spans.get(clause)


def quoted(expr: Expr, ir: AttentionIR, otherwise: str) -> str:
    """The expression as a message shows it, or words for one that is too long."""
    text = print_expr(expr, ir)
    return f"'{text}'" if "\n" not in text and len(text) <= _WIDEST else otherwise
