"""``attngen check``: grammar, names, types and lints, without torch."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.analysis.lint import Lint, lint
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR
from attngen.source import Source
from attngen.syntax.parse import parse


def check(source: Source) -> tuple[AttentionIR, list[str]]:
    """The variant and its warnings, each ready to print. Raises AttnGenError for what is wrong."""
    ir = build(parse(source), source)
    return ir, warnings(source, lint(ir))


def warnings(source: Source, found: Iterable[Lint]) -> list[str]:
    """``FILE:LINE:COL: warning: ...`` for each."""
    return [f"{source.name}:{'' if one.span else ' '}{one}" for one in found]


def signature(ir: AttentionIR) -> str:
    """The variant as it is called: ``alibi(q, k, v, *, slopes)``."""
    named = [i.name for i in ir.inputs]
    named += [p.name if p.default is None else f"{p.name}={p.default!r}" for p in ir.params]
    return f"{ir.name}({', '.join(['q', 'k', 'v', *(['*', *named] if named else [])])})"
