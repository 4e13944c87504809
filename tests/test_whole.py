"""A part without a mask is left out where no tile fits into it, and only there."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from ir_text import expr
from kernel_calls import variant_of

from attngen.analysis.block_range import Bound, key_ranges, query_ranges
from attngen.plan.table import shipped
from attngen.plan.whole import with_room

LENGTH = 96
NUMBER = st.integers(0, 40)
MASK = st.one_of(
    st.builds("{} <= k and k < {}".format, NUMBER, NUMBER),
    st.builds("0 <= dist and k < {}".format, NUMBER),
    st.builds("abs(dist) <= {}".format, NUMBER),
    st.builds("-{} <= dist and dist < {}".format, NUMBER, NUMBER),
    st.builds("0 <= dist and (dist < {} or k < {})".format, NUMBER, NUMBER),
    st.builds("0 <= dist or q < {} or k < {}".format, NUMBER, NUMBER),
)


def longest(bound: Bound, axis: str) -> int:
    """Of all tiles of one position or more, as many as a tile that streams past them can have in a row."""

    def value(end: object, default: int, first: int, last: int) -> int:
        words = {"q_len": LENGTH, "k_len": LENGTH, f"{axis}_first": first, f"{axis}_last": last}
        return default if end is None else int(evaluate(end, Env(words=words)))

    lengths = []
    for first in range(0, LENGTH, 5):
        for last in (first, min(first + 15, LENGTH - 1)):
            low, high = value(bound.lo, 0, first, last), value(bound.hi, LENGTH, first, last)
            lengths.append(min(high, LENGTH) - max(low, 0))
    return max(lengths)


@settings(max_examples=60, deadline=None)
@given(MASK, st.integers(1, 32))
def test_a_part_without_a_mask_is_dropped_only_where_no_tile_fits(mask: str, tile: int) -> None:
    node = expr(mask)
    for axis, ranges in (("q", key_ranges(node)), ("k", query_ranges(node))):
        for before, after in zip(ranges, with_room(ranges, tile), strict=True):
            assert after.possible == before.possible
            if before.certain is not None and after.certain is None:
                assert longest(before.certain, axis) < tile
            else:
                assert after == before


@pytest.mark.parametrize("mask", ["k < 3", "abs(dist) <= 3", "0 <= dist and k < 3", "5 <= k and k < 20"])
def test_a_part_of_few_positions_gets_no_loop_without_a_mask(mask: str) -> None:
    (keys,) = with_room(key_ranges(expr(mask)), 16)
    assert keys.certain is None


def test_no_kernel_holds_a_loop_for_fewer_keys_than_any_tile_has() -> None:
    assert shipped().shortest == 16
    text = variant_of("mask = causal and (dist < 1000 or k < 3)").source
    assert "whole_tiles(0," not in text
    assert "whole_tiles(0," in variant_of("mask = causal and (dist < 1000 or k < 32)").source
