"""Names that mislead: a standard word redefined, a param or an input that nothing reads, a gradient of 0."""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.lints.finding import Lint
from attngen.ir.nodes import AttentionIR, Expr, Op, postorder
from attngen.ir.types import Type


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


def dead_gradients(ir: AttentionIR) -> Iterator[Lint]:
    """input a: float32[k_len] grad, and mask = causal and a[k] > 0.0: no gradient flows through the mask."""
    read = {str(node.value) for node in postorder(*ir.clauses) if node.op in (Op.LOAD, Op.VECTOR)}
    roots = [e for e in (ir.scale, ir.final_score, ir.bias, ir.weight, ir.sink) if e is not None]
    reached = _differentiated(roots)
    by_mask = {str(node.value) for node in postorder(ir.mask) if node.op is Op.LOAD}
    for one in ir.inputs:
        if one.grad and one.name in read - reached:
            why = (
                "through the mask"
                if one.name in by_mask
                else "through int(), floor, a comparison or an index"
            )
            message = f"input '{one.name}' is read only {why}: its gradient is always 0, and 'grad' can go"
            yield Lint("dead-gradient", message, ir.spans.get(f"input {one.name}"))


def _differentiated(roots: list[Expr]) -> set[str]:
    """The inputs that a derivative of these may reach: by floats alone, and not through ``floor``."""
    stack, seen, found = list(roots), set[Expr](), set[str]()
    while stack:
        node = stack.pop()
        if node in seen or (node.type is not Type.FLOAT and node.op is not Op.VECTOR):
            continue
        seen.add(node)
        if node.op in (Op.LOAD, Op.VECTOR):
            found.add(str(node.value))
        elif node.op is not Op.FLOOR:
            stack += node.args
    return found
