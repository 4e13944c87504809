"""``attngen show``: any stage of the compiler as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING

from attngen.commands.common import Backend
from attngen.ir.nodes import AttentionIR, Expr
from attngen.ir.types import Scalar
from attngen.source import Source, Span

if TYPE_CHECKING:
    from attngen.analysis.block_range import Bound


def text_of(source: Source, stage: str, overrides: Mapping[str, Scalar], backend: Backend) -> str:
    """The stage ``ast``, ``ir``, ``ranges``, ``plan`` or ``triton``. The first three also show what the
    kernels do not have yet."""
    from attngen.ir.build import build
    from attngen.ir.printer import print_ir
    from attngen.syntax.parse import parse

    spec = parse(source)
    if stage == "ast":
        return tree(spec)
    ir = build(spec, source, overrides)
    if stage == "ir":
        return print_ir(ir).rstrip("\n")
    if stage == "ranges":
        return ranges(ir)

    from attngen.pipeline import compile_spec

    result = compile_spec(source, overrides=overrides, backend=backend.value)
    return tree(result.plan, ir) if stage == "plan" else result.text.rstrip("\n")


def tree(value: object, ir: AttentionIR | None = None) -> str:
    """Nested dataclasses as an indented outline, one field a line; places in the text are left out."""
    return "\n".join(_outline(value, "", 0, ir))


def _outline(value: object, label: str, depth: int, ir: AttentionIR | None) -> Iterator[str]:
    lead = "  " * depth + (f"{label}: " if label else "")
    if isinstance(value, Expr):
        from attngen.ir.printer import print_expr

        yield lead + print_expr(value, ir)
    elif isinstance(value, Enum):
        yield lead + str(value.value)
    elif isinstance(value, AttentionIR) and label:
        yield f"{lead}variant {value.name}"
    elif is_dataclass(value) and not isinstance(value, type):
        shown = [(f.name, getattr(value, f.name)) for f in fields(value) if f.repr]
        shown = [(name, item) for name, item in shown if not isinstance(item, Span | Source)]
        if len(shown) == 1 and isinstance(shown[0][1], str | int | float):
            yield f"{lead}{type(value).__name__} {shown[0][1]}"
            return
        yield lead + type(value).__name__
        for name, item in shown:
            yield from _outline(item, name, depth + 1, ir)
    elif isinstance(value, Mapping):
        yield lead + ("" if value else "none")
        for key, item in value.items():
            name = key if isinstance(key, str) else "".join(_outline(key, "", 0, ir))
            yield from _outline(item, name, depth + 1, ir)
    elif isinstance(value, tuple | list) and any(is_dataclass(item) for item in value):
        yield lead.rstrip(" ")
        for item in value:
            yield from _outline(item, "-", depth + 1, ir)
    elif isinstance(value, tuple | list):
        yield lead + (", ".join(map(str, value)) if value else "none")
    else:
        yield lead + (value if isinstance(value, str) and "\n" not in value else repr(value))


def ranges(ir: AttentionIR) -> str:
    """The loop bounds that the mask gives: for a tile of queries, and for a tile of keys."""
    from attngen.analysis.block_range import key_ranges, query_ranges
    from attngen.analysis.simplify import simplify
    from attngen.ir.printer import print_clauses

    mask = simplify(ir.mask)
    lines = ["every key is kept" if (text := print_clauses(ir).get("mask")) is None else text, ""]
    for title, streamed, found in (
        ("a tile of queries, q_first to q_last (forward, dQ)", "k", key_ranges(mask, ir.inputs)),
        ("a tile of keys, k_first to k_last (dK, dV)", "q", query_ranges(mask, ir.inputs)),
    ):
        lines.append(f"{title}:")
        for item in found:
            lines.append(f"    visited:         {_interval(streamed, item.possible, ir)}")
            certain = "no part of it" if item.certain is None else _interval(streamed, item.certain, ir)
            lines.append(f"    needing no mask: {certain}")
    return "\n".join(lines)


def _interval(streamed: str, bound: Bound, ir: AttentionIR) -> str:
    from attngen.ir.printer import print_expr

    low = "0" if bound.lo is None else print_expr(bound.lo, ir)
    high = f"{streamed}_len" if bound.hi is None else print_expr(bound.hi, ir)
    return f"{streamed} in [{low}, {high})"
