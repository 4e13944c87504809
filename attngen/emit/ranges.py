"""Loop bounds as jitted functions: the ends that the mask implies, clipped to the sequence, in whole tiles.

k < q_last + offset + 1   ->   hi = clip(q_last + offset + 1, k_len)

A function returns the parts of two loops, ``inner`` without a mask and ``edges`` with one, each as
``(lo, hi)`` or, where it may have several parts, ``(lo, hi, gaps)``: it runs from lo to hi, and jumps over
each gap ``(at, length)`` that it meets, so that hi lies the gaps' lengths before the last part's end.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from attngen.emit.scope import Scope, ends
from attngen.emit.view import RangeFunction, Ranges
from attngen.ir.nodes import Expr, Op
from attngen.plan.loops import Loops

Part = tuple[str, str]  # the texts of where it begins and where the next may begin
WHOLE = "whole"  # whether the tile itself is: a ragged tile of keys masks every step


def make_ranges(scope: Scope) -> Ranges:
    """The functions of both loops: keys past a tile of queries, and queries past a tile of keys."""
    key_range = _range(scope, "key_range", scope.plan.key_loops, "k", "q")
    query_range = _range(scope, "query_range", scope.plan.query_loops, "q", "k")
    return Ranges((key_range, query_range), key_range, query_range)


def _range(scope: Scope, name: str, loops: Loops, streamed: str, tiled: str) -> RangeFunction:
    roots = tuple(e for r in loops.ranges for e in ends(r))
    block = scope.kernel.results(roots, scope.program_values)
    texts = dict(zip(roots, block.results, strict=True))
    writer = _Writer(loops, f"{streamed}_len", texts, streamed == "q", scope.plan.splits_far)
    lines, result = writer.body()
    uses = [*block.uses, f"{streamed}_len", *([WHOLE] if writer.asks_whole else [])]
    by_head = {"h", *scope.program_block().defines}
    return RangeFunction(
        name=scope.names.function(name),
        doc=_doc(streamed, tiled, block.uses, loops.has_interior, writer.gives_gaps),
        lines=(*block.lines, *lines),
        result=result,
        uses=scope.parameters(uses),
        block="BLOCK_N" if streamed == "k" else "BLOCK_M",
        has_interior=loops.has_interior,
        has_gaps=loops.has_gaps or scope.plan.splits_far,
        is_by_head=not by_head.isdisjoint(uses),
    )


class _Writer:
    """Writes one function's body, given the texts of the ranges' ends."""

    def __init__(
        self, loops: Loops, length: str, texts: dict[Expr, str], may_be_ragged: bool, is_split: bool
    ) -> None:
        self._loops = loops
        self._length = length
        self._texts = texts
        self.asks_whole = may_be_ragged and loops.has_interior
        self._gaps = ", ()" if is_split else ""  # where far tiles get a loop of their own
        only = loops.ranges[0] if len(loops.ranges) == 1 else None
        # Whether the parts come with their gaps, which "over" jumps.
        self.gives_gaps = only is None or (only.certain is not None and (loops.has_gaps or is_split))

    def body(self) -> tuple[list[str], str]:
        """The lines, and what the function returns."""
        if len(self._loops.ranges) == 1:
            return self._of_one()
        return self._of_several()

    def _clipped(self, end: Expr | None, default: str) -> str:
        if end is None or (end.op is Op.CONST and end.value == 0):
            return default if end is None else "0"
        return f"clip({self._texts[end]}, {self._length})"

    def _of_one(self) -> tuple[list[str], str]:
        (only,) = self._loops.ranges
        start = self._clipped(only.possible.lo, "0")
        lines = [f"lo = {start}", f"hi = {self._clipped(only.possible.hi, self._length)}"]
        if start != "0":
            lines.append("lo = tl.where(lo < hi, lo // BLOCK * BLOCK, hi)")
        if only.certain is None:
            return lines, "lo, hi"
        if not self._loops.has_gaps:
            end = f"{self._clipped(only.certain.hi, self._length)} // BLOCK * BLOCK"
            lines.append(f"full_hi = {end if start == '0' else f'tl.maximum({end}, lo)'}")
            if self.asks_whole:
                lines.append(f"full_hi = tl.where({WHOLE}, full_hi, lo)")
            return lines, f"(lo, full_hi{self._gaps}), (full_hi, hi{self._gaps})"
        lines.append(self._interior(0, "lo", "hi", "full_lo", "full_hi"))
        return [*lines, "inside = full_hi - full_lo"], (
            "(full_lo, full_hi, ()), (lo, hi - inside, ((full_lo, inside),))"
        )

    def _of_several(self) -> tuple[list[str], str]:
        ranges = self._loops.ranges
        lines: list[str] = []
        starts = [self._clipped(r.possible.lo, "0") for r in ranges]
        for n, (start, r) in enumerate(zip(starts, ranges, strict=True)):
            lines.append(f"lo_{n} = {start}")
            lines.append(f"hi_{n} = {self._clipped(r.possible.hi, self._length)}")
            if start != "0":
                lines.append(f"lo_{n}, hi_{n} = out_of_the_way(lo_{n}, hi_{n}, {self._length})")
        for n in reversed(range(len(ranges) - 1)):  # usually they rise already
            if starts[n] != "0":
                lines.append(f"lo_{n} = tl.minimum(lo_{n}, lo_{n + 1})")
        for n, r in enumerate(ranges):
            if n < len(ranges) - 1:
                lines.append(f"hi_{n} = tl.cdiv(hi_{n}, BLOCK) * BLOCK")
            if starts[n] != "0":
                lines.append(f"lo_{n} = tl.minimum(lo_{n} // BLOCK * BLOCK, hi_{n})")
            if n > 0:
                lines.append(f"lo_{n} = tl.maximum(lo_{n}, hi_{n - 1})")
                lines.append(f"hi_{n} = tl.maximum(hi_{n}, lo_{n})")
            if r.certain is not None:
                lines.append(self._interior(n, f"lo_{n}", f"hi_{n}", f"full_lo_{n}", f"full_hi_{n}"))
        inner, edges = list(self._inner_parts()), list(self._edge_parts())
        result = f"({', '.join(_joined(edges))})"
        if inner:
            result = f"({', '.join(_joined(inner))}), {result}"
        return lines, result if inner else result[1:-1]

    def _interior(self, n: int, lo: str, hi: str, full_lo: str, full_hi: str) -> str:
        certain = self._loops.ranges[n].certain
        assert certain is not None
        low, high = self._clipped(certain.lo, "0"), self._clipped(certain.hi, self._length)
        end = f"tl.where({WHOLE}, {hi}, {lo})" if self.asks_whole else hi
        return f"{full_lo}, {full_hi} = whole_tiles({low}, {high}, {lo}, {end}, BLOCK)"

    def _inner_parts(self) -> Iterator[Part]:
        for n, r in enumerate(self._loops.ranges):
            if r.certain is not None:
                yield f"full_lo_{n}", f"full_hi_{n}"

    def _edge_parts(self) -> Iterator[Part]:
        for n, r in enumerate(self._loops.ranges):
            if r.certain is None:
                yield f"lo_{n}", f"hi_{n}"
            else:
                yield f"lo_{n}", f"full_lo_{n}"
                yield f"full_hi_{n}", f"hi_{n}"


def _joined(parts: list[Part]) -> tuple[str, str, str]:
    """Parts in rising order as one loop: from, to, and the gaps."""
    gaps = [(end, f"{start} - {end}") for (_, end), (start, _) in pairwise(parts)]
    stop = " - ".join([parts[-1][1], *(f"({length})" for _, length in gaps)])
    items = ", ".join(f"({at}, {length})" for at, length in gaps)
    return parts[0][0], stop, f"({items}{',' if len(gaps) == 1 else ''})"


def _doc(streamed: str, tiled: str, uses: tuple[str, ...], has_interior: bool, gives_gaps: bool) -> str:
    """For which tile, as far as the function asks, and what it returns."""
    sides = {"q": "queries", "k": "keys"}
    first, last = (f"{tiled}_{end}" if f"{tiled}_{end}" in uses else "" for end in ("first", "last"))
    whom = f"for the {sides[tiled]} {first}..{last}" if first and last else f"for any {sides[tiled]}"
    if bool(first) != bool(last):
        whom = f"for {sides[tiled]} from {first} on" if first else f"for {sides[tiled]} up to {last}"
    part = "(lo, hi, gaps)" if gives_gaps else "(lo, hi)"
    if not has_interior:
        return f"{sides[streamed].capitalize()} to visit {whom}, as {part}."
    return f"{sides[streamed].capitalize()} {whom}: whole tiles without a mask and the edges, each {part}."
