"""The compiler as one list of passes: spec text to module text, nothing else in between."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from attngen.analysis.lint import Lint, lint
from attngen.analysis.simplify import simplify_ir
from attngen.emit.compose import make_view
from attngen.emit.render import render, template_texts
from attngen.emit.variant_name import require_free_name
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.ir.verify import MAX_NODES, verify
from attngen.plan.plan import Options, Plan, make_plan
from attngen.plan.table import TileTable
from attngen.source import Source
from attngen.syntax import ast
from attngen.syntax.parse import parse


@dataclass(frozen=True)
class FrontEnd:
    """A spec that is well typed, before any decision about kernels."""

    source: Source
    ast: ast.Spec
    ir: AttentionIR
    lints: tuple[Lint, ...]


@dataclass(frozen=True)
class Compilation:
    """Every stage of one spec, together."""

    source: Source
    ast: ast.Spec
    ir: AttentionIR
    lints: tuple[Lint, ...]
    plan: Plan
    text: str


def check_spec(source: Source, *, overrides: Mapping[str, Scalar] | None = None) -> FrontEnd:
    """Parse, type and lint a spec. Raises AttnGenError."""
    tree = parse(source)
    ir = build(tree, source, overrides or {})  # names and types: every error of the user ends here
    verify(ir)
    lints = tuple(lint(ir))  # before simplify: it speaks of what the user wrote
    return FrontEnd(source, tree, ir, lints)


def compile_spec(
    source: Source,
    *,
    overrides: Mapping[str, Scalar] | None = None,
    backend: str = "auto",
    math: str = "approx",
    table: TileTable | None = None,
) -> Compilation:
    """Compile a spec to a module's text. Raises AttnGenError, or ValueError for an unknown option.

    Tiles come from ``table``; None is the shipped one with the rows of the one that ATTNGEN_TILES names.
    """
    options = Options(backend, math) if table is None else Options(backend, math, table)
    front = check_spec(source, overrides=overrides)
    ir = simplify_ir(front.ir)  # constants fold before the analyses look for them
    verify(ir, 4 * MAX_NODES)  # a node that two others share may become a part of each
    plan = make_plan(ir, options)  # every decision
    text = render(make_view(plan, template_texts(plan.backend.name)))
    require_free_name(text, ir, source)  # only the text knows which names the module itself needs
    return Compilation(source, front.ast, ir, front.lints, plan, text)
