"""Who computes what, and when, in the forward for sm_90: its jitted functions run as Python of numbers."""

from __future__ import annotations

import builtins
from functools import cache
from types import FunctionType, SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from attngen.compile_check.module import load
from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec


@cache
def text_of(name: str) -> str:
    return compile_spec(find_spec(name), backend="hopper").text


def as_python(name: str, **others: Any) -> Any:
    """A jitted function of the module for causal, where gl gives plain numbers."""
    gl = SimpleNamespace(
        static_range=range, to_tensor=int, where=lambda test, x, y: x if test else y, **others
    )
    function = getattr(load(text_of("causal")), name).fn
    names = {"__builtins__": builtins, "gl": gl, "noted": lambda notes, at: notes[at]}
    return FunctionType(function.__code__, names)


@given(st.integers(1, 2000), st.integers(1, 132))
def test_dealing_gives_each_tile_to_one_program(tiles: int, programs: int) -> None:
    dealt_tile = as_python("dealt_tile", num_programs=lambda axis: programs)
    taken = []
    for number in range(programs):
        while number < tiles:
            taken.append(number)
            number = dealt_tile(number)
    assert sorted(taken) == list(range(tiles))


@settings(deadline=None)
@given(
    st.integers(2, 3).flatmap(
        lambda n: st.lists(st.lists(st.integers(1, 5), min_size=n, max_size=n), min_size=1)
    )
)
def test_turns_go_round_among_those_that_have_a_step_left(drawn: list[list[int]]) -> None:
    tiles = [sorted(ends) for ends in drawn]  # how many steps each warpgroup has of a tile
    parts = len(tiles[0])
    next_in_turn = as_python("next_in_turn")
    at = [(0, 0)] * parts  # each warpgroup's tile, and its steps of it so far
    begun: list[tuple[int, int, int]] = []
    part = 0
    for _ in range(sum(map(sum, tiles))):
        tile, step = at[part]
        begun.append((tile, step, part))
        at[part] = (tile, step + 1) if step + 1 < tiles[tile][part] else (tile + 1, 0)
        part = int(next_in_turn(step, (tiles[tile], 0), part, parts))
    assert begun == sorted(begun) and at == [(len(tiles), 0)] * parts and part == 0


@pytest.mark.parametrize(
    ("name", "leaves_out", "deals"),
    [
        ("causal", True, True),
        ("prefix_lm", True, True),
        ("full", False, True),
        ("sliding_window", False, False),
        ("packed_documents", False, False),
    ],
)
def test_tiles_are_left_out_and_dealt_out_only_where_later_queries_have_no_fewer_keys(
    name: str, leaves_out: bool, deals: bool
) -> None:
    text = text_of(name)
    assert ("own_edges" in text, "dealt_tile" in text) == (leaves_out, deals)
