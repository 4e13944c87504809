"""Small calls and places in them, to show a mistake with numbers: q = 0 in a call of 4 queries and 4 keys.

What a call brings (inputs, params without a default, sizes that an input names) is unknown here: an
expression then has a value only where that value does not hang on it.

    causal and doc[b, k] == 3   at q = 0, k = 2   ->   False
                                at q = 2, k = 0   ->   None
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from attngen.ir.fold import FoldError, apply
from attngen.ir.nodes import AttentionIR, Expr, Op, leaves, postorder
from attngen.ir.types import Scalar, Type

_SMALL = (1, 2, 3, 4, 6, 9)
_LARGEST = 5_000  # of a length that is tried
_MOST_CONSTANTS = 4
_SIZES = {"batch": 1, "heads": 2, "kv_heads": 1, "head_dim": 64, "v_dim": 64}
_HEADS = ({"b": 0, "h": 0, "h_kv": 0}, {"b": 0, "h": 1, "h_kv": 0})


@dataclass(frozen=True)
class Place:
    """One score of a call."""

    q_len: int
    k_len: int
    q: int
    k: int
    h: int = 0

    @property
    def words(self) -> dict[str, int]:
        own = {"q": self.q, "k": self.k, "pos": self.q + self.k_len - self.q_len}
        return {**_SIZES, **_HEADS[self.h], "q_len": self.q_len, "k_len": self.k_len, **own}

    @property
    def sizes(self) -> str:
        return f"q_len = {self.q_len}, k_len = {self.k_len}"


class Partial:
    """Computes expressions of a variant at places. Params have their defaults."""

    def __init__(self, root: Expr, ir: AttentionIR) -> None:
        self._root = root
        self._order = postorder(root)
        self._params: Mapping[str, Scalar | None] = {p.name: p.default for p in ir.params}

    def at(self, place: Place, product: float | None = None) -> Scalar | None:
        """The value there, or None where only a call knows it. ``product`` is the raw score, where known."""
        words = place.words
        values: dict[Expr, Scalar | None] = {}
        for node in self._order:
            if node.op is Op.CONST:
                assert not isinstance(node.value, str)
                values[node] = node.value
            elif node.op is Op.WORD:
                values[node] = words[str(node.value)]
            elif node.op is Op.PARAM:
                values[node] = self._params[str(node.value)]
            elif node.op is Op.SCORE:
                values[node] = product
            elif node.op in (Op.SIZE, Op.LOAD, Op.VECTOR, Op.DOT):
                values[node] = None
            else:
                values[node] = _value(node.op, [values[a] for a in node.args])
        return values[self._root]


def _value(op: Op, args: list[Scalar | None]) -> Scalar | None:
    if op in (Op.AND, Op.OR):
        decisive = op is Op.OR
        if decisive in args:
            return decisive
        return None if None in args else not decisive
    if op is Op.WHERE:
        condition, chosen, other = args
        if condition is None:
            return chosen if chosen == other else None
        return chosen if condition else other
    if None in args:
        return None
    if op in (Op.FLOORDIV, Op.MOD) and args[1] == 0:
        return 0
    try:
        return apply(op, [a for a in args if a is not None])
    except FoldError:
        return None  # infinite, or not a number


def with_params(root: Expr, ir: AttentionIR) -> str:
    """The defaults of the params that an expression reads, as they follow the sizes of a call."""
    read = {node.value for node in leaves(root, op=Op.PARAM)}
    return "".join(f", {p.name} = {p.default}" for p in ir.params if p.name in read and p.default is not None)


def places(*roots: Expr) -> Iterator[Place]:
    """Places worth a look: all of small calls, and around the constants of ``roots`` in larger ones.

    No call has more queries than keys: the first ones would lie before every key, whatever the spec.
    """
    heads = (0, 1) if any(w.value == "h" for root in roots for w in leaves(root, op=Op.WORD)) else (0,)
    for h in heads:
        for n in _SMALL:
            for q_len in dict.fromkeys((n, 1)):
                yield from (Place(q_len, n, q, k, h) for q in range(q_len) for k in range(n))
    marks = constants(*roots)
    for n in sorted({m + 2 for m in marks}):
        near = sorted({m + step for m in (0, *marks) for step in (-1, 0, 1)} | {n // 2, n - 1})
        inside = [x for x in near if 0 <= x < n]
        for q in inside:
            ks = {*inside, *(q - x for x in near), *(q + x for x in near)}
            yield from (Place(n, n, q, k, h) for h in heads for k in sorted(ks) if 0 <= k < n)


def rows(*roots: Expr) -> Iterator[tuple[Place, ...]]:
    """All places of one row, for rows worth a look."""
    heads = (0, 1) if any(w.value == "h" for root in roots for w in leaves(root, op=Op.WORD)) else (0,)
    for h in heads:
        for n in _SMALL:
            for q_len in dict.fromkeys((n, 1)):
                for q in range(q_len):
                    yield tuple(Place(q_len, n, q, k, h) for k in range(n))


def constants(*roots: Expr) -> list[int]:
    """Some of the ints above the small lengths that stand in ``roots``, the smallest ones."""
    ints = {
        abs(int(node.value or 0))
        for root in roots
        for node in leaves(root, op=Op.CONST)
        if node.type is Type.INT
    }
    return sorted(n for n in ints if max(_SMALL) < n + 2 <= _LARGEST)[:_MOST_CONSTANTS]
