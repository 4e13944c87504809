"""What kind of call each example of a property run is: several tiles by several first, then the odd ones.

A run of two examples is a run of two calls worth something: long enough that every loop takes several steps,
ragged, with a group of heads and a mask that matters. Nothing, one, and whatever comes along follow.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from hypothesis import strategies as st

from attngen.testing.shape import Shape, shapes


class Kind(Enum):
    """What an example is to reach."""

    TILES = auto()  # several tiles of queries by several of keys
    ONE_QUERY = auto()  # as in decoding
    NO_KEYS = auto()
    NO_QUERIES = auto()
    NO_BATCH = auto()
    ONE_BY_ONE = auto()
    ANY = auto()  # whatever ``shapes`` draws


_FIRST = (
    *(Kind.TILES, Kind.TILES, Kind.TILES, Kind.ONE_QUERY, Kind.TILES, Kind.NO_KEYS),
    *(Kind.TILES, Kind.NO_BATCH, Kind.ANY, Kind.ONE_BY_ONE, Kind.TILES, Kind.NO_QUERIES),
)
_THEN = (Kind.ANY, Kind.TILES)


def kind_of(nth: int) -> Kind:
    """The kind of a run's ``nth`` example, from 0."""
    return _FIRST[nth] if nth < len(_FIRST) else _THEN[(nth - len(_FIRST)) % len(_THEN)]


@dataclass(frozen=True)
class Tiles:
    """The tiles that a run's kernels have: ``several`` is a length of more than one of the largest, whole
    tiles of the smallest are multiples of ``size``."""

    several: int
    size: int


SMALL = Tiles(33, 16)  # of ``small_tiles``, in the interpreter
USUAL = Tiles(129, 64)

# (batch, kv_heads, group): the first two calls have a batch of groups, then groups of several key heads.
_PLANES = ((2, 1, 2), (1, 2, 2))
_MORE_PLANES = ((2, 1, 2), (1, 2, 2), (3, 1, 1), (2, 2, 1), (1, 1, 3), (1, 2, 3), (3, 1, 2))
_DIMS = (24, 16, 40)  # two that are no power of two, as narrow as can be


def shapes_of(
    nth: int, *, tiles: Tiles, max_length: int, head_dims: Sequence[int] | None
) -> st.SearchStrategy[Shape]:
    """The shapes of a run's ``nth`` example. Lengths are at most ``max_length``, if it is as long as that."""
    kind = kind_of(nth)
    if kind is Kind.ANY:
        return shapes(max_length=max_length, head_dims=head_dims)

    @st.composite
    def draw_shape(draw: st.DrawFn) -> Shape:
        usual = draw(st.sampled_from(_MORE_PLANES))
        batch, kv_heads, group = _PLANES[nth] if nth < len(_PLANES) else usual
        q_len, k_len = draw(_lengths(nth, tiles, max_length))
        if kind is Kind.ONE_BY_ONE:
            q_len = k_len = 1
        q_len = {Kind.ONE_QUERY: 1, Kind.NO_QUERIES: 0}.get(kind, q_len)
        k_len = 0 if kind is Kind.NO_KEYS else k_len
        batch = 0 if kind is Kind.NO_BATCH else batch
        dims = list(head_dims or _DIMS)
        head_dim = draw(st.sampled_from(dims))
        others = [dim for dim in dims if dim != head_dim] or dims
        v_dim = head_dim if nth % 2 else draw(st.sampled_from(others))
        return Shape(batch, kv_heads * group, kv_heads, q_len, k_len, head_dim, v_dim)

    return draw_shape()


@st.composite
def _lengths(draw: st.DrawFn, nth: int, tiles: Tiles, most: int) -> tuple[int, int]:
    """q_len and k_len of several tiles, which fill none: more keys, then more queries than keys in whole
    tiles, and so on by turns."""
    few = min(tiles.several, most)
    whole = [n for n in range(few, most) if n % tiles.size == 0]
    if nth % 2 and whole:
        k_len = draw(st.sampled_from(whole))
        return draw(_ragged(k_len + 1, most, tiles)), k_len
    q_len = draw(_ragged(few, max(few, (few + most) // 2), tiles))
    k_len = draw(_ragged(min(q_len + 1, most), most, tiles))
    return (k_len, q_len) if nth % 2 else (q_len, k_len)


def _ragged(low: int, high: int, tiles: Tiles) -> st.SearchStrategy[int]:
    numbers = [n for n in range(low, high + 1) if n % tiles.size]
    return st.sampled_from(numbers or [high])
