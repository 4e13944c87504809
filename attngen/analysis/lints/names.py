"""Names that mislead: a standard word redefined, a param or an input that nothing reads."""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.lints.finding import Lint
from attngen.ir.nodes import AttentionIR, Op, postorder


def shadowed_names(ir: AttentionIR) -> Iterator[Lint]:
    """let causal = dist > 0: a standard word with a meaning of its own."""
    for key, span in ir.spans.items():
        if key.startswith("shadow "):
            name = key.removeprefix("shadow ")
            yield Lint("shadowed-name", f"'{name}' redefines the standard word of that name", span)


def unused_names(ir: AttentionIR) -> Iterator[Lint]:
    """param cap, and no clause reads it."""
    nodes = postorder(*ir.clauses)
    read = {(node.op, str(node.value)) for node in nodes if node.op in (Op.PARAM, Op.LOAD, Op.SIZE)}
    read |= {(Op.LOAD, str(node.value)) for node in nodes if node.op is Op.VECTOR}
    for param in ir.params:
        if (Op.PARAM, param.name) not in read:
            yield Lint(
                "unused-name", f"no clause reads param '{param.name}'", ir.spans.get(f"param {param.name}")
            )
    for one in ir.inputs:
        sizes = {(Op.SIZE, str(dim)) for dim in one.dims}  # it may be there for its size only
        if (Op.LOAD, one.name) not in read and not sizes & read:
            yield Lint(
                "unused-name", f"no clause reads input '{one.name}'", ir.spans.get(f"input {one.name}")
            )
