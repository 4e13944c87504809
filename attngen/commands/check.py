"""What ``attngen check`` prints of a spec that ``pipeline.check_spec`` passed."""

from __future__ import annotations

from collections.abc import Iterable

from attngen.analysis.lint import Lint
from attngen.errors import excerpt
from attngen.ir.nodes import AttentionIR
from attngen.source import Source


def warnings(source: Source, found: Iterable[Lint]) -> list[str]:
    """``FILE:LINE:COL: warning: ...`` for each, with the line and a caret under its place."""
    lines = []
    for one in found:
        lines.append(f"{source.name}:{'' if one.span else ' '}{one}")
        if one.span:
            lines[-1] += "\n" + excerpt(source, one.span)
    return lines


def signature(ir: AttentionIR) -> str:
    """The variant as it is called: ``alibi(q, k, v, *, slopes)``."""
    named = [i.name for i in ir.inputs]
    named += [p.name if p.default is None else f"{p.name}={p.default!r}" for p in ir.params]
    return f"{ir.name}({', '.join(['q', 'k', 'v', *(['*', *named] if named else [])])})"
