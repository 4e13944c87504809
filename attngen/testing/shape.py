"""Shapes to test with: lengths at and beside the edges of tiles, head ratios, head dims not powers of two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from hypothesis import strategies as st

#: Lengths beside which kernels go wrong: nothing, one, and the edges of one tile and of two.
EDGES = (0, 1, 2, 15, 16, 17, 31, 33, 63, 64, 65, 127, 128, 129, 255, 257)

HEAD_DIMS = (16, 24, 64, 80, 96, 128, 256)


@dataclass(frozen=True)
class Shape:
    """The sizes of one call: q (batch, heads, q_len, head_dim), k and v with ``kv_heads`` and ``k_len``."""

    batch: int
    heads: int
    kv_heads: int
    q_len: int
    k_len: int
    head_dim: int
    v_dim: int

    @property
    def q(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads, self.q_len, self.head_dim)

    @property
    def k(self) -> tuple[int, int, int, int]:
        return (self.batch, self.kv_heads, self.k_len, self.head_dim)

    @property
    def v(self) -> tuple[int, int, int, int]:
        return (self.batch, self.kv_heads, self.k_len, self.v_dim)

    @property
    def out(self) -> tuple[int, int, int, int]:
        return (self.batch, self.heads, self.q_len, self.v_dim)


def shapes(
    *,
    max_length: int = 100,
    max_planes: int = 6,
    head_dims: Sequence[int] | None = None,
) -> st.SearchStrategy[Shape]:
    """Shapes with lengths up to ``max_length`` and at most ``max_planes`` batch-heads, small ones first.

    ``head_dims`` restricts head_dim and v_dim (so that compiled kernels are reused); by default most
    draws are small, to keep runs fast.
    """
    dims = list(head_dims) if head_dims else [16, 16, 24, 16, 64, 24, 80, 16, 96, 128, 256]
    edges = [n for n in EDGES if n <= max_length]
    length = st.one_of(
        st.integers(1, min(40, max_length)), st.sampled_from(edges), st.integers(0, max_length)
    )

    @st.composite
    def draw_shape(draw: st.DrawFn) -> Shape:
        kv_heads, group = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (3, 1), (1, 4)]))
        heads = kv_heads * group
        batch = draw(st.sampled_from([1, 1, 1, 2, 2, 3, 0]).filter(lambda n: n * heads <= max_planes))
        q_len = draw(length)
        k_len = q_len if draw(st.booleans()) else draw(length)
        head_dim = draw(st.sampled_from(dims))
        v_dim = head_dim if draw(st.integers(0, 3)) else draw(st.sampled_from(dims))
        return Shape(batch, heads, kv_heads, q_len, k_len, head_dim, v_dim)

    return draw_shape()
