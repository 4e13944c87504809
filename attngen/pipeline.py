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
    plan = _plan(front, options)
    text = render(make_view(plan, template_texts(plan.backend.name)))
    require_free_name(text, plan.ir, source)  # only the text knows which names the module itself needs
    return Compilation(source, front.ast, plan.ir, front.lints, plan, text)


def plan_spec(source: Source, options: Options, overrides: Mapping[str, Scalar] | None = None) -> Plan:
    """Every decision about a spec's kernels, and no kernel. Raises AttnGenError."""
    return _plan(check_spec(source, overrides=overrides), options)


def _plan(front: FrontEnd, options: Options) -> Plan:
    ir = simplify_ir(front.ir)  # constants fold before the analyses look for them
    verify(ir, 4 * MAX_NODES)  # a node that two others share may become a part of each
    return make_plan(ir, options)
