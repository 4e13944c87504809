"""What a tile visits, in words: the same lines in the emitted module's header and in ``attngen show``.

causal   ->   The queries q_first..q_last
                  can keep no keys but [0, q_last + offset + 1)
                  all keep [0, q_first + offset + 1)
"""

from __future__ import annotations

from collections.abc import Iterator

from attngen.analysis.block_range import Bound, Range
from attngen.emit.prose import folded
from attngen.ir.nodes import TRUE, AttentionIR, Expr, Op, make, param, substitute, word
from attngen.ir.printer import print_expr
from attngen.ir.types import Type
from attngen.plan.loops import Loops

_OFFSET = make(Op.SUB, word("k_len"), word("q_len"))
_TOO_LONG = "..."  # in the place of an end that nobody would read
_WIDEST = 160  # columns of a bound that the text can hold
_WIDTH = 106


def derivation(ir: AttentionIR, keys: Loops, queries: Loops) -> str:
    """Which keys a tile of queries visits and which queries a tile of keys, and which need no mask."""
    if ir.mask is TRUE:
        return "Nothing is masked: every tile visits the whole sequence."
    lines = [
        "The queries q_first..q_last",
        *_visited("can keep no keys but", keys.ranges, "k_len", ir),
        *_whole("all keep", keys, "k_len", ir),
        "The keys k_first..k_last",
        *_visited("can be kept by no queries but", queries.ranges, "q_len", ir),
        *_whole("are kept by all of", queries, "q_len", ir),
        *_picked(keys, ir),
    ]
    head = "The mask bounds what a tile visits"
    if any("offset" in line for line in lines) and not _is_taken("offset", ir):
        head += " (offset = k_len - q_len: the last query is aligned with the last key)"
    tail = []
    if any(_TOO_LONG in line for line in lines):
        tail += ["", f"An end that stands as {_TOO_LONG} is too long for this text; the kernels compute it."]
    if keys.has_interior or queries.has_interior:
        tail += ["", "Whole tiles of what all keep run without the mask."]
    return "\n".join(
        [
            f"{head}.",
            "",
            *(f"    {part}" for line in lines for part in folded(line, _WIDTH)),
            *tail,
        ]
    )


def _visited(what: str, ranges: tuple[Range, ...], length: str, ir: AttentionIR) -> Iterator[str]:
    for n, r in enumerate(ranges):
        yield f"    {'and' if n else what} [{interval(r.possible, length, ir)})"


def _whole(what: str, loops: Loops, length: str, ir: AttentionIR) -> Iterator[str]:
    certain = [r.certain for r in loops.ranges if r.certain is not None]
    if not certain and loops.picks is None:
        yield "    and no tile is known to be kept whole: every one is masked"
    for n, bound in enumerate(certain):
        yield f"    {'and' if n else what} [{interval(bound, length, ir)})"


def _picked(loops: Loops, ir: AttentionIR) -> Iterator[str]:
    if loops.picks is None:
        return
    if loops.picks.may_keep is None:
        yield "and of these, the tiles that the mask keeps something of: each program looks ahead."
        return
    yield "and of these, the pairs of tiles for which"
    for line in print_expr(_with_offset(loops.picks.may_keep, ir)).splitlines():
        yield f"    {line}"


def interval(bound: Bound, length: str, ir: AttentionIR) -> str:
    """``lo, hi`` of a half-open interval; _TOO_LONG, which ``derivation`` explains, for such an end."""
    low = "0" if bound.lo is None else _end(bound.lo, ir)
    high = length if bound.hi is None else _end(bound.hi, ir)
    return f"{low}, {high}"


def _end(end: Expr, ir: AttentionIR) -> str:
    text = print_expr(_with_offset(end, ir))
    return text if "\n" not in text and len(text) <= _WIDEST else _TOO_LONG


def _with_offset(root: Expr, ir: AttentionIR) -> Expr:
    return root if _is_taken("offset", ir) else substitute(root, {_OFFSET: param("offset", Type.INT)})


def _is_taken(name: str, ir: AttentionIR) -> bool:
    dims = {d for i in ir.inputs for d in i.dims}
    return name in {*dims, *(i.name for i in ir.inputs), *(p.name for p in ir.params)}
