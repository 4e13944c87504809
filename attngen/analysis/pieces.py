"""Sets of positions as short lists of pieces, and their hull or best part as one interval.

A piece is everything ``x`` with ``max(los) <= x < min(his)``, provided that all ``conditions`` hold.
``and`` joins the bounds of two pieces, ``or`` puts two lists after one another:

    dist >= 0 and (dist < 1024 or k < 4)
    ->  {k < q_last + 1, k >= q_first - 1023}, {k < q_last + 1, k < 4}
    ->  hull [None, q_last + 1)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import pairwise

from attngen.analysis.linear import Linear, Sums, extreme
from attngen.ir.nodes import (
    CORNERS,
    FALSE,
    SEARCHES,
    TRUE,
    Expr,
    Op,
    const,
    make,
    mentions,
    postorder,
    remake,
    word,
)
from attngen.ir.types import Type

_ZERO = const(0)
_MOST_PIECES = 16  # of one condition; more are merged
_MOST_BOUNDS = 24  # of one piece; more are dropped
_MOST_RANGES = 4  # of a tile; the nearest are joined
_FAR = 512  # positions between two ranges that are worth another one


@dataclass(frozen=True)
class Piece:
    """``max(los) <= x < min(his)`` if all of ``conditions``; without bounds or conditions: everything."""

    los: tuple[Expr, ...] = ()
    his: tuple[Expr, ...] = ()
    conditions: tuple[Expr, ...] = ()

    def meet(self, other: Piece) -> Piece:
        return Piece(
            _union(self.los, other.los),
            _union(self.his, other.his),
            _union(self.conditions, other.conditions),
        )

    @cached_property
    def bounds(self) -> frozenset[tuple[int, Expr]]:
        parts = (self.los, self.his, self.conditions)
        return frozenset((kind, one) for kind, part in enumerate(parts) for one in part)

    def within(self, other: Piece) -> bool:
        """Whether every bound of ``other`` is also one of this piece."""
        return other.bounds <= self.bounds


Pieces = tuple[Piece, ...]
EVERYTHING: Pieces = (Piece(),)
NOTHING: Pieces = ()


def _union(first: tuple[Expr, ...], second: tuple[Expr, ...]) -> tuple[Expr, ...]:
    present = set(first)
    return first + tuple(e for e in second if e not in present)


def provided(condition: Expr) -> Pieces:
    """Everything where ``condition`` (of scalars) holds, else nothing."""
    if condition is TRUE:
        return EVERYTHING
    return NOTHING if condition is FALSE else (Piece(conditions=(condition,)),)


def both(first: Pieces, second: Pieces, *, widen: bool) -> Pieces:
    """The intersection, possibly larger (``widen``) or smaller (otherwise) where it would grow too long."""
    return _tidy((one.meet(other) for one in first for other in second), widen)


def either(first: Pieces, second: Pieces, *, widen: bool) -> Pieces:
    """The union, with the same freedom as ``both``."""
    return _tidy((*first, *second), widen)


def _tidy(pieces: Iterable[Piece], widen: bool) -> Pieces:
    kept: list[Piece] = []
    for piece in pieces:
        if len(piece.bounds) > _MOST_BOUNDS:
            if not widen:
                continue  # a bound less would make the piece larger than what is proven
            piece = Piece(*(part[: _MOST_BOUNDS // 3] for part in (piece.los, piece.his, piece.conditions)))
        if any(piece.within(other) for other in kept):
            continue
        kept = [other for other in kept if not other.within(piece)]
        if len(kept) < _MOST_PIECES:
            kept.append(piece)
        elif widen:
            last = kept.pop()
            kept.append(
                Piece(
                    tuple(e for e in last.los if e in piece.los),
                    tuple(e for e in last.his if e in piece.his),
                    tuple(e for e in last.conditions if e in piece.conditions),
                )
            )
    return tuple(kept)


@dataclass(frozen=True)
class Bound:
    """Positions ``lo <= x < hi``; None: no bound on that side (a kernel clamps to 0 and the length)."""

    lo: Expr | None
    hi: Expr | None


@dataclass(frozen=True, order=True)
class _Places:
    """Where a set of positions begins and ends, for each of ``_USUAL_TILES``."""

    ends: tuple[tuple[int, int], ...]

    def near(self, later: _Places) -> bool:
        return all(low < high + _FAR for (_, high), (low, _) in zip(self.ends, later.ends, strict=True))

    def meets(self, other: _Places) -> bool:
        return any(
            low < other_high + _FAR and other_low < high + _FAR
            for (low, high), (other_low, other_high) in zip(self.ends, other.ends, strict=True)
        )

    def hull(self, other: _Places) -> _Places:
        pairs = zip(self.ends, other.ends, strict=True)
        return _Places(tuple((min(a[0], b[0]), max(a[1], b[1])) for a, b in pairs))

    def gap(self, later: _Places) -> int:
        return max(low - high for (_, high), (low, _) in zip(self.ends, later.ends, strict=True))


class Intervals:
    """Lists of pieces turned into one interval over positions ``0 <= x < length``."""

    def __init__(self, length: str, sums: Sums) -> None:
        self._length = word(length)
        self._sums = sums

    def hull(self, pieces: Pieces) -> Bound:
        """An interval that holds all pieces (within 0 and the length)."""
        alive = [p for p in pieces if not self._empty(p)]
        if not alive:
            return Bound(_ZERO, _ZERO)
        always = [p for p in alive if not p.conditions]
        low, high = self._ends(always) if always else (self._length, _ZERO)
        for piece in alive:
            if not piece.conditions:
                continue
            condition = self._all(piece.conditions)
            one_low, one_high = self._ends([piece])
            if len(alive) == 1:  # an end at 0 is enough to leave nothing
                return Bound(one_low, make(Op.WHERE, condition, one_high or self._length, _ZERO))
            if low is not None:
                low = self._choose(condition, Op.MIN, one_low or _ZERO, low)
            if high is not None:
                high = self._choose(condition, Op.MAX, one_high or self._length, high)
        return Bound(low, high)

    def apart(self, pieces: Pieces) -> list[Pieces]:
        """The pieces in rising order, those together that lie near each other wherever the tile is.

        A piece under a condition is no reason to join what is apart without it: the first of those that it
        overlaps takes it in, and grows over the others where the condition holds.
        """
        alive = [p for p in pieces if not self._empty(p)]
        always = [p for p in alive if not p.conditions] or alive
        found: list[tuple[_Places, Pieces]] = []
        for piece, places in sorted(((p, self._usual_places(p)) for p in always), key=lambda one: one[1]):
            if found and found[-1][0].near(places):
                before, others = found.pop()
                found.append((before.hull(places), (*others, piece)))
            else:
                found.append((places, (piece,)))
        for piece in alive:
            if piece not in always:
                places = self._usual_places(piece)
                at = next((n for n, one in enumerate(found) if one[0].meets(places)), None)
                if at is None:
                    found.append((places, (piece,)))
                else:
                    found[at] = (found[at][0], (*found[at][1], piece))
        found.sort(key=lambda one: one[0])
        while len(found) > _MOST_RANGES:
            gaps = [earlier[0].gap(later[0]) for earlier, later in pairwise(found)]
            at = gaps.index(min(gaps))
            first, second = found[at : at + 2]
            found[at : at + 2] = [(first[0].hull(second[0]), (*first[1], *second[1]))]
        return [tuple(p for p in alive if p in cluster) for _, cluster in found] or [NOTHING]

    def _usual_places(self, piece: Piece) -> _Places:
        ends = []
        for words in _USUAL_TILES:
            length = usual(self._length, words)
            low = max((usual(e, words) for e in piece.los), default=0)
            high = min((usual(e, words) for e in piece.his), default=length)
            ends.append((max(low, 0), min(max(low, high), length)))
        return _Places(tuple(ends))

    def best(self, pieces: Pieces, inside: Bound | None = None) -> Bound | None:
        """One interval within the pieces: the part that is longest, or has most of ``inside``, at a usual
        shape. Of ``inside`` it has something there."""
        parts = self._parts([p for p in pieces if not self._empty(p)])

        def lengths(part: tuple[Expr, Bound]) -> tuple[int, int]:
            own = _usual_length(part[1], self._length)
            return own if inside is None else _usual_length(_meet(part[1], inside), self._length), own

        if inside is not None:
            parts = [part for part in parts if lengths(part)[0] > 0]
        chosen: list[tuple[Expr, Bound]] = []
        for condition, bound in sorted(parts, key=lengths, reverse=True):
            chosen.append((condition, bound))
            if condition is TRUE or len(chosen) == _MOST_PIECES // 4:
                break
        if not chosen:
            return None
        last, bound = chosen.pop()
        if last is not TRUE:
            bound = Bound(bound.lo, make(Op.WHERE, last, bound.hi or self._length, _ZERO))
        for condition, one in reversed(chosen):
            lo, hi = bound.lo, bound.hi
            if one.lo is not lo:
                lo = self._where(condition, one.lo or _ZERO, lo or _ZERO)
            if one.hi is not hi:
                hi = self._where(condition, one.hi or self._length, hi or self._length)
            bound = Bound(lo, hi)
        return bound

    def _parts(self, pieces: Sequence[Piece]) -> list[tuple[Expr, Bound]]:
        """Pieces that share one end are joined; each result is an interval and its condition."""
        joined: dict[object, list[Piece]] = {}
        for piece in pieces:
            joined.setdefault(("los", piece.los, piece.conditions), []).append(piece)
            joined.setdefault(("his", piece.his, piece.conditions), []).append(piece)
        parts: list[tuple[Expr, Bound]] = []
        for group in joined.values():
            part = self._all(group[0].conditions), Bound(*self._ends(group))
            if part not in parts:
                parts.append(part)
        return parts

    def _ends(self, pieces: Sequence[Piece]) -> tuple[Expr | None, Expr | None]:
        """The least lower end and the greatest upper end, conditions aside."""
        low = high = None
        if all(p.los for p in pieces):
            low = self._hull_end(Op.MIN, Op.MAX, [p.los for p in pieces])
        if all(p.his for p in pieces):
            high = self._hull_end(Op.MAX, Op.MIN, [p.his for p in pieces])
        return low, high

    def _hull_end(self, outer: Op, inner: Op, ends: Sequence[tuple[Expr, ...]]) -> Expr:
        # Absorption: max(a, min(a, b)) is a, so an end whose bounds include all of another's is dropped.
        kept = [
            end
            for i, end in enumerate(ends)
            if not any(
                set(other) < set(end) or (set(other) == set(end) and j < i) for j, other in enumerate(ends)
            )
        ]
        return extreme(outer, [extreme(inner, end, self._sums) for end in kept], self._sums)

    def _empty(self, piece: Piece) -> bool:
        """Whether the piece is certain to hold nothing between 0 and the length."""
        los = [Linear(), *map(self._sums.of, piece.los)]
        his = [Linear({self._length: 1}), *map(self._sums.of, piece.his)]
        return any(self._sums.never_negative(lo.plus(hi, -1)) for lo in los for hi in his)

    def _all(self, conditions: Sequence[Expr]) -> Expr:
        result = TRUE
        for condition in conditions:
            result = condition if result is TRUE else make(Op.AND, result, condition)
        return result

    def _choose(self, condition: Expr, op: Op, value: Expr, otherwise: Expr) -> Expr:
        """``op(value, otherwise)`` where the condition holds, else ``otherwise``."""
        # Ends are clamped to 0 and the length anyway, so one of them settles the choice.
        farthest, neutral = (_ZERO, self._length) if op is Op.MIN else (self._length, _ZERO)
        beside = _assume(otherwise, condition, True)
        if value is farthest or beside is neutral:
            together = value
        else:
            together = extreme(op, [value, beside], self._sums)
        return self._where(condition, together, otherwise)

    def _where(self, condition: Expr, chosen: Expr, other: Expr) -> Expr:
        other = _assume(other, condition, False)
        return chosen if chosen is other else make(Op.WHERE, condition, chosen, other)


def _assume(root: Expr, condition: Expr, truth: bool) -> Expr:
    """``root`` where ``condition`` is known: ``where`` nodes that it decides give way to a branch."""
    new: dict[Expr, Expr] = {}
    for node in postorder(root):
        new[node] = remake(node, tuple(new[a] for a in node.args))
        if node.op is Op.WHERE:
            test = node.args[0]
            if test is condition:
                new[node] = new[node.args[1 if truth else 2]]
            elif opposite(test) is condition:
                new[node] = new[node.args[2 if truth else 1]]
    return new[root]


def opposite(condition: Expr) -> Expr:
    """The negation, with ``not not`` and negated integer comparisons resolved."""
    if condition.op is Op.CONST:
        return FALSE if condition is TRUE else TRUE
    if condition.op is Op.NOT:
        return condition.args[0]
    flipped = {Op.LT: Op.LE, Op.LE: Op.LT}.get(condition.op)
    if flipped and condition.args[0].type is Type.INT:  # a float comparison with NaN has no such twin
        return make(flipped, condition.args[1], condition.args[0])
    swapped = {Op.EQ: Op.NE, Op.NE: Op.EQ}.get(condition.op)
    return make(swapped, *condition.args) if swapped else make(Op.NOT, condition)


# A usual shape, to weigh parts whose lengths depend on the call.
_USUAL = {"q_len": 8192, "k_len": 8192, "q_first": 4096, "q_last": 4223, "k_first": 4096, "k_last": 4223}
_USUAL_TILES = tuple(
    _USUAL | {f"{axis}_{end}": n + size for axis in "qk" for end, size in (("first", 0), ("last", 127))}
    for n in (4096, 1728, 6464)
)
_USUAL_SCALAR = 1024  # a param, a loaded prefix, another size
_USUAL_MOST = 2**40  # longer than any length; without a bound, repeated squares would never end
_USUAL_OPS: dict[Op, Callable[..., int]] = {
    Op.ADD: lambda a, b: a + b,
    Op.SUB: lambda a, b: a - b,
    Op.MUL: lambda a, b: a * b,
    Op.NEG: lambda a: -a,
    Op.ABS: abs,
    Op.MIN: min,
    Op.MAX: max,
    Op.FLOORDIV: lambda a, b: a // b if b else 0,
    Op.MOD: lambda a, b: a % b if b else 0,
    Op.CLAMP: lambda x, low, high: min(max(x, low), high),
    Op.WHERE: lambda _, chosen, __: chosen,
}
_KNOWN_OPS: dict[Op, Callable[..., bool | int]] = _USUAL_OPS | {
    Op.NOT: lambda x: not x,
    Op.LT: lambda x, y: x < y,
    Op.LE: lambda x, y: x <= y,
    Op.EQ: lambda x, y: x == y,
    Op.NE: lambda x, y: x != y,
}


def _meet(first: Bound, second: Bound) -> Bound:
    los = [e for e in (first.lo, second.lo) if e]
    his = [e for e in (first.hi, second.hi) if e]
    return Bound(
        reduce(lambda a, b: make(Op.MAX, a, b), los) if los else None,
        reduce(lambda a, b: make(Op.MIN, a, b), his) if his else None,
    )


def _usual_length(bound: Bound, length: Expr) -> int:
    low = max(usual(bound.lo) if bound.lo else 0, 0)
    return min(usual(bound.hi or length), usual(length)) - low


def known_values(order: Iterable[Expr], words: Mapping[str, int]) -> dict[Expr, bool | int | None]:
    """The values of nodes, operands first, where ``words`` have these; None where they depend on more."""
    values: dict[Expr, bool | int | None] = {}
    for node in order:
        values[node] = known_value(node, [values[a] for a in node.args], words)
    return values


def known_value(node: Expr, args: list[bool | int | None], words: Mapping[str, int]) -> bool | int | None:
    """The value of one node, whose operands have the values ``args``; None where that is not known."""
    if node.op is Op.CONST and isinstance(node.value, bool | int):
        return node.value
    if node.op is Op.WORD:
        return words.get(str(node.value))
    if node.op in (Op.AND, Op.OR):
        settled = node.op is Op.OR  # by one operand alone
        return settled if settled in args else None if None in args else not settled
    if node.op is Op.WHERE and args[0] is not None:
        return args[1] if args[0] else args[2]
    if None in args or node.op not in _KNOWN_OPS or any(a.type is Type.FLOAT for a in node.args):
        return None
    return _KNOWN_OPS[node.op](*args)


def usual(root: Expr, words: Mapping[str, int] = _USUAL) -> int:
    """An INT expression at a usual shape: 8192 queries and as many keys, and the corners of one tile.

    What depends on the call takes a usual value, and a condition that does so is taken to hold.
    """
    order = postorder(root)
    known = known_values(order, words)
    values: dict[Expr, int] = {}
    for node in order:
        exact = known[node]
        if exact is not None:
            values[node] = max(-_USUAL_MOST, min(int(exact), _USUAL_MOST))
        elif node.op in SEARCHES:  # for what the tile reads, or for the same value in every tile
            here = words.get("q_first", words.get("k_first", 0)) if mentions(node, *CORNERS) else 0
            values[node] = here + (_USUAL_SCALAR if node.op is Op.FIRST_ABOVE else 0)
        elif node.op is Op.WHERE and node.type is Type.INT and known[node.args[0]] is False:
            values[node] = values[node.args[2]]
        elif node.type is Type.INT and node.op in _USUAL_OPS:
            value = _USUAL_OPS[node.op](*(values[a] for a in node.args))
            values[node] = max(-_USUAL_MOST, min(value, _USUAL_MOST))
        else:
            values[node] = _USUAL_SCALAR
    return values[root]
