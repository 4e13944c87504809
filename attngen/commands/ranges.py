"""``attngen show --stage ranges``: which tiles the kernels visit, derived, and drawn for one small call."""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from functools import cached_property

from attngen.analysis.block_range import Bound
from attngen.analysis.pieces import known_value
from attngen.analysis.simplify import simplify_ir
from attngen.emit.derivation import derivation
from attngen.ir.nodes import BEYOND, SEARCHES, TRUE, AttentionIR, Expr, Op, Param, leaves, postorder
from attngen.ir.printer import print_clauses
from attngen.ir.types import Type
from attngen.plan.loops import Loops
from attngen.plan.plan import loops_of
from attngen.plan.table import current

_TILES = 16  # on each side of the example
_LENGTHS = (1024, 4096, 16384, 65536)  # the example has the shortest that holds the mask's numbers twice
_SHOWN = 3  # the tile of queries that is told in words, unless another one has more kinds of tiles
_PARTS = 4  # of what is sorted
_SKIPPED, _MASKED, _FREE, _OPEN = ".", "+", "#", "?"

_INTRODUCTION = (
    "The kernels work on tiles: some queries by some keys. A tile that the mask keeps nothing of is never "
    "visited, one that it keeps whole runs without the mask, and any other is masked score by score. Which "
    "is which follows from the places of a tile's first and last query, or key:"
)


def ranges(ir: AttentionIR) -> str:
    """The derivation, and an example with numbers."""
    ir = simplify_ir(ir)
    keys, queries = loops_of(ir, current())
    mask = print_clauses(ir).get("mask", "every key is kept")
    introduction = [] if ir.mask is TRUE else [textwrap.fill(_INTRODUCTION, 100)]
    parts = [mask, *introduction, derivation(ir, keys, queries)]
    if any(node.op in SEARCHES for node in postorder(*_ends(keys), *_ends(queries))):
        parts.append(_searches(ir))
    return "\n\n".join([*parts, "\n".join(_example(ir, keys))])


def _ends(loops: Loops) -> list[Expr]:
    bounds = [b for r in loops.ranges for b in (r.possible, r.certain) if b is not None]
    return [end for b in bounds for end in (b.lo, b.hi) if end is not None]


def _searches(ir: AttentionIR) -> str:
    names = ", ".join(i.name for i in ir.inputs if i.sorted)
    return (
        f"first(row >= x) is the first place at which a row of what is sorted ({names}) reaches x: found by\n"
        "a search in the row, when the program starts."
    )


# The example


def _example(ir: AttentionIR, loops: Loops) -> Iterator[str]:
    numbers = [abs(int(node.value or 0)) for node in leaves(ir.mask, op=Op.CONST) if node.type is Type.INT]
    longest = max((n for n in numbers if n < _LENGTHS[-1]), default=0)
    length = next((n for n in _LENGTHS if n >= 2 * longest), _LENGTHS[-1])
    tile = length // _TILES
    given, rows = _most_telling(ir, loops, length, tile)
    kinds = [len(set(row.letters)) for row in rows]
    number = _SHOWN if kinds[_SHOWN] == max(kinds) else kinds.index(max(kinds))
    shown = rows[number]
    sizes = f"{length} queries and {length} keys in tiles of {tile}, batch 0, head 0"
    yield f"For example {sizes}{_given(ir, given)}:"
    yield ""
    first = shown.words["q_first"]
    yield f"    queries {first}..{first + tile - 1} (tile {number})"
    for one in loops.ranges:
        yield f"        can keep keys in {shown.interval(one.possible)}"
        if one.certain is not None:
            yield f"        all keep {shown.interval(one.certain)}"
    for letter, what in _LEGEND.items():
        tiles = [n for n, own in enumerate(shown.letters) if own == letter]
        if tiles:
            yield f"        {what}: key {'tile' if len(tiles) == 1 else 'tiles'} {_listed(tiles)}"
    used = {letter for row in rows for letter in row.letters}
    yield ""
    yield "    " + ", ".join(f"{letter} {what}" for letter, what in _LEGEND.items() if letter in used)
    yield "    tile of queries, and the tiles of keys"
    for n, row in enumerate(rows):
        yield f"    {n:4} {''.join(row.letters)}"


_LEGEND = {
    _SKIPPED: "never visited",
    _MASKED: "masked",
    _FREE: "without mask",
    _OPEN: "visited where the mask keeps something",
}


def _most_telling(
    ir: AttentionIR, loops: Loops, length: int, tile: int
) -> tuple[Mapping[str, int], list[_Row]]:
    """What the call gives, and the rows of the drawing: of two drawings, the one with more kinds of tiles."""
    found = []
    for given in _values(ir, length):
        rows = [_Row(ir, loops, given, length, tile, n) for n in range(_TILES)]
        kinds = {letter for row in rows for letter in row.letters}
        found.append((len(kinds), given, rows))
    _, given, rows = max(found, key=lambda one: one[0])  # the first of equals
    return given, rows


def _values(ir: AttentionIR, length: int) -> Iterator[Mapping[str, int]]:
    """Numbers for what the mask reads and a call gives: all different, rising and falling.

    Equal ones would hide what one does beside another: ``k < prefix[b]`` under ``k < used[b]``.
    """
    read = _read_by_mask(ir)
    names = [i.name for i in ir.inputs if i.dtype.startswith("int") and not i.sorted and i.name in read]
    names += [p.name for p in ir.params if p.default is None and p.type is not Type.BOOL and p.name in read]
    if len(names) < 2:
        yield dict.fromkeys(names, length // _PARTS)
        return
    spread = [length * (2 * n + 1) // (2 * len(names)) for n in range(len(names))]
    yield dict(zip(names, spread, strict=True))
    yield dict(zip(names, reversed(spread), strict=True))


def _given(ir: AttentionIR, given: Mapping[str, int]) -> str:
    """What the example takes for inputs and params."""
    read = _read_by_mask(ir)
    told = [f"{i.name} in {_PARTS} equal runs" for i in ir.inputs if i.sorted and i.name in read]
    told += [f"{i.name} {given[i.name]}" for i in ir.inputs if i.name in given]
    told += [f"{p.name} {_param(p, given)}" for p in ir.params if p.name in read]
    return f" ({', '.join(told)})" if told else ""


def _read_by_mask(ir: AttentionIR) -> set[str]:
    return {str(node.value) for op in (Op.LOAD, Op.PARAM) for node in leaves(ir.mask, op=op)}


def _param(one: Param, given: Mapping[str, int]) -> int | bool | None:
    return one.default if isinstance(one.default, bool | int) else given.get(one.name)


class _Row:
    """One tile of queries of the example, and what expressions are there."""

    def __init__(
        self, ir: AttentionIR, loops: Loops, given: Mapping[str, int], length: int, tile: int, number: int
    ) -> None:
        first = number * tile
        self._ir, self._loops, self._length, self._tile = ir, loops, length, tile
        self.words = {"q_first": first, "q_last": first + tile - 1, "q_len": length, "k_len": length}
        self.words |= {"b": 0, "h": 0, "h_kv": 0}
        self._given = given
        self._params = {p.name: _param(p, given) for p in ir.params}
        self._sorted = {i.name for i in ir.inputs if i.sorted}

    def interval(self, bound: Bound) -> str:
        low, high = self._ends(bound)
        return "no key" if low >= high else f"[{low}, {high})"

    @cached_property
    def letters(self) -> list[str]:
        """What becomes of each tile of keys."""
        letters = [_SKIPPED] * _TILES
        for one in self._loops.ranges:
            low, high = self._ends(one.possible)
            for n in range(low // self._tile, -(-high // self._tile) if low < high else 0):
                letters[n] = self._letter(n)
        for one in self._loops.ranges:
            if one.certain is not None:
                low, high = self._ends(one.certain)
                for n in range(-(-low // self._tile), high // self._tile):
                    letters[n] = _FREE if letters[n] != _SKIPPED else _SKIPPED
        return letters

    def _letter(self, n: int) -> str:
        picks = self._loops.picks
        if picks is None:
            return _MASKED
        if picks.may_keep is None:
            return _OPEN
        corners = {"k_first": n * self._tile, "k_last": (n + 1) * self._tile - 1}
        return _SKIPPED if self._value(picks.may_keep, corners) is False else _MASKED

    def _ends(self, bound: Bound) -> tuple[int, int]:
        low = 0 if bound.lo is None else self._value(bound.lo) or 0
        high = None if bound.hi is None else self._value(bound.hi)
        return max(low, 0), min(self._length if high is None else high, self._length)

    def _value(self, root: Expr, corners: dict[str, int] | None = None) -> bool | int | None:
        words = self.words | (corners or {})
        values: dict[Expr, bool | int | None] = {}
        for node in postorder(root):
            args = [values[a] for a in node.args]
            if node.op is Op.PARAM:
                values[node] = self._params[str(node.value)]
            elif node.op is Op.LOAD:
                values[node] = self._read(str(node.value), args[-1] if args else 0)
            elif node.op in SEARCHES:
                values[node] = self._found(node, args[-1])
            else:
                values[node] = known_value(node, args, words)
        return values[root]

    def _read(self, name: str, index: bool | int | None) -> int | None:
        if name in self._sorted and index is not None:
            return min(max(index, 0), self._length - 1) * _PARTS // self._length
        return self._given.get(name)

    def _found(self, node: Expr, value: bool | int | None) -> int | None:
        if value is None:
            return None
        part = value + 1 if node.op is Op.FIRST_ABOVE else value
        if part <= 0:
            return -BEYOND
        return BEYOND if part >= _PARTS else part * self._length // _PARTS


def _listed(numbers: list[int]) -> str:
    """0 1 2 5 -> "0 to 2, 5"."""
    runs: list[list[int]] = []
    for n in numbers:
        if runs and runs[-1][-1] == n - 1:
            runs[-1].append(n)
        else:
            runs.append([n])
    return ", ".join(f"{r[0]} to {r[-1]}" if len(r) > 1 else str(r[0]) for r in runs)
