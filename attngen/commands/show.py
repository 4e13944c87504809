"""``attngen show``: any stage of the compiler as text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING

from attngen.commands.common import Backend
from attngen.ir.nodes import TRUE, AttentionIR, Expr
from attngen.ir.types import Scalar
from attngen.source import Source, Span

if TYPE_CHECKING:
    from attngen.plan.loops import Loops
    from attngen.plan.plan import Plan


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
        from attngen.commands.ranges import ranges

        return ranges(ir)

    from attngen.pipeline import compile_spec

    result = compile_spec(source, overrides=overrides, backend=backend.value)
    return plan_text(result.plan, ir) if stage == "plan" else result.text.rstrip("\n")


def plan_text(plan: Plan, ir: AttentionIR) -> str:
    """A plan: a few lines on what was decided, then all of it."""
    lines = [
        f"back end: {plan.backend.name}: {plan.backend.reason}",
        f"forward: {plan.weights.forward.value}: {_FORWARD[plan.weights.forward.value]}",
        f"backward: {_backward(plan)}",
        f"loops: keys in {_loops(plan.key_loops, plan.ir)}, queries in {_loops(plan.query_loops, plan.ir)}",
    ]
    if plan.learned:
        lines.append("gradients: " + ", ".join(f"{x.input.name} by {x.route.value}" for x in plan.learned))
    return "\n".join([*lines, "", tree(plan, ir)])


#: What the plan's word for the forward means; ``plan.weights.Forward`` says which variants take which.
_FORWARD = {
    "online": "in one pass; the weights of a row are final at its end, by a factor",
    "two passes": "a first pass finds each row's log-sum-exp, a second one its weights",
    "at once": "in one pass; a weight is final as soon as its score is, without a sum over its row",
}


def _backward(plan: Plan) -> str:
    apart = "a kernel for dK and dV, another for dQ"
    if plan.backend.hopper is None:
        return apart
    limit = "" if not plan.learned or plan.gathers_sums or plan.gathers_dense else ", but for learned inputs"
    least = plan.backend.hopper.fused_from
    return f"on sm_90, for heads of {least} to 128, one for all in Gluon{limit}; else {apart}"


def _loops(loops: Loops, ir: AttentionIR) -> str:
    if loops.picks is not None:
        return "tiles that are looked at first"
    count = len(loops.ranges)
    text = f"{count} range{'s' * (count > 1)}"
    if ir.mask is TRUE:
        return f"{text}, all of it without a mask"
    return f"{text}, part of it without the mask" if loops.has_interior else text


def _holds_table(value: object) -> bool:
    """Whether an outline of this has a table in it, which is long."""
    if is_dataclass(value) and not isinstance(value, Expr | AttentionIR):
        return any(_holds_table(getattr(value, f.name)) for f in fields(value) if f.repr)
    return isinstance(value, Mapping)


def tree(value: object, ir: AttentionIR | None = None) -> str:
    """Nested dataclasses as an indented outline, one field a line; places in the text are left out."""
    return "\n".join(_outline(value, "", 0, ir))


def _outline(value: object, label: str, depth: int, ir: AttentionIR | None) -> Iterator[str]:
    lead = "  " * depth + (f"{label}: " if label else "")
    if isinstance(value, Expr):
        from attngen.ir.printer import print_expr

        lines = print_expr(value, ir).split("\n")
        if len(lines) == 1:
            yield lead + lines[0]
        else:  # lets, then the expression: all under their heading
            yield lead.rstrip(" ") or "  " * depth + "-"
            yield from ("  " * (depth + 1) + line for line in lines)
    elif isinstance(value, Enum):
        yield lead + str(value.value)
    elif isinstance(value, AttentionIR) and label:
        yield f"{lead}variant {value.name}"
    elif is_dataclass(value) and not isinstance(value, type):
        shown = [(f.name, getattr(value, f.name)) for f in fields(value) if f.repr]
        shown = [(name, item) for name, item in shown if not isinstance(item, Span | Source)]
        shown.sort(key=lambda field: _holds_table(field[1]))  # long: what is short comes before
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
