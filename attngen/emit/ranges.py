"""Loop bounds as jitted functions: the ends that the mask implies, clipped to the sequence, in whole tiles.

k < q_last + offset + 1   ->   hi = clip(q_last + offset + 1, k_len)
"""

from __future__ import annotations

from attngen.emit.scope import Scope, ends
from attngen.emit.view import RangeFunction, Ranges
from attngen.ir.nodes import Expr, Op
from attngen.plan.loops import Loop


def make_ranges(scope: Scope) -> Ranges:
    """The functions of both loops: keys past a tile of queries, and queries past a tile of keys."""
    key_range = _range(scope, "key_range", scope.plan.key_loops[0], "k", "q")
    query_range = _range(scope, "query_range", scope.plan.query_loops[0], "q", "k")
    clips = any("clip(" in line for r in (key_range, query_range) for line in r.lines)
    return Ranges((key_range, query_range), key_range, query_range, clips)


def _range(scope: Scope, name: str, loop: Loop, streamed: str, tiled: str) -> RangeFunction:
    length = f"{streamed}_len"
    possible, certain = loop.range.possible, loop.range.certain
    roots = ends(loop.range)
    block = scope.kernel.results(roots, scope.program_values)
    texts = dict(zip(roots, block.results, strict=True))

    def clipped(end: Expr | None, default: str) -> str:
        if end is None or (end.op is Op.CONST and end.value == 0):
            return default if end is None else "0"
        return f"clip({texts[end]}, {length})"

    start = clipped(possible.lo, "0")
    lines = [*block.lines, "lo = 0" if start == "0" else f"lo = {start} // BLOCK * BLOCK"]
    lines.append(f"hi = {clipped(possible.hi, length)}")
    result = ["lo", "hi"]
    if certain is not None:
        lines.append(f"full_hi = {clipped(certain.hi, length)} // BLOCK * BLOCK")
        result = ["lo", "full_hi", "hi"]
        if loop.has_left_edge:
            lines.append(f"full_lo = tl.cdiv({clipped(certain.lo, '0')}, BLOCK) * BLOCK")
            lines.append("inside = full_lo < full_hi")
            lines.append("full_lo, full_hi = tl.where(inside, full_lo, lo), tl.where(inside, full_hi, lo)")
            result = ["lo", "full_lo", "full_hi", "hi"]
        elif start != "0":
            lines.append("full_hi = tl.maximum(full_hi, lo)")
    return RangeFunction(
        name=scope.names.function(name),
        doc=_doc(streamed, tiled, loop),
        lines=tuple(lines),
        result=", ".join(result),
        uses=scope.parameters([*block.uses, length]),
        block="BLOCK_N" if streamed == "k" else "BLOCK_M",
        has_interior=loop.has_interior,
        has_left_edge=loop.has_left_edge,
    )


def _doc(streamed: str, tiled: str, loop: Loop) -> str:
    sides = {"q": "queries", "k": "keys"}
    doc = f"{sides[streamed].capitalize()} [lo, hi) for the {sides[tiled]} {tiled}_first..{tiled}_last"
    if loop.has_interior:
        doc += f"; whole tiles without a mask [{'full_lo' if loop.has_left_edge else 'lo'}, full_hi)"
    return f"{doc}."
