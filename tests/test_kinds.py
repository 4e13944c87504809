"""What a property run calls, in which order, and how it shrinks what fails."""

from __future__ import annotations

from dataclasses import replace

import ir_samples as samples
import pytest

from attngen.pipeline import check_spec
from attngen.source import Source
from attngen.spec_file import find_spec
from attngen.testing.builds import builds_of
from attngen.testing.cases import Case, cases
from attngen.testing.kinds import SMALL, USUAL, Kind, Tiles, kind_of
from attngen.testing.reach import small_consts
from attngen.testing.run import _drawn
from attngen.testing.shrink import resized, smallest


def drawn(nth: int, seed: int = 0, *, tiles: Tiles = SMALL, max_length: int = 70) -> Case:
    ir = samples.learned_bias()
    case = _drawn(
        cases(ir, dtypes=("float16", "float32"), nth=nth, tiles=tiles, max_length=max_length),
        f"{seed}.{nth}",
    )
    assert case is not None
    return case


@pytest.mark.parametrize(("tiles", "longest"), [(SMALL, 70), (SMALL, 52), (USUAL, 300)])
@pytest.mark.parametrize("seed", range(3))
def test_a_runs_first_calls_are_ragged_ones_of_several_tiles_by_several(
    seed: int, tiles: Tiles, longest: int
) -> None:
    calls = [drawn(nth, seed, tiles=tiles, max_length=longest) for nth in range(12)]
    reaching = [c.shape for nth, c in enumerate(calls) if kind_of(nth) is Kind.TILES]
    assert [kind_of(nth) for nth in range(3)] == [Kind.TILES] * 3 and len(reaching) == 6
    for shape in reaching:
        assert tiles.several <= min(shape.q_len, shape.k_len) and max(shape.q_len, shape.k_len) <= longest
        assert shape.q_len != shape.k_len and shape.q_len % tiles.size
        assert shape.heads * shape.batch > 1
    first, second = calls[0].shape, calls[1].shape
    assert first.q_len < first.k_len and second.q_len > second.k_len
    assert first.k_len % tiles.size and not second.k_len % tiles.size
    assert first.batch > 1 and first.heads > first.kv_heads
    assert second.heads > second.kv_heads > 1
    assert first.v_dim != first.head_dim
    assert (calls[0].dtype, calls[1].dtype) == ("float16", "float32")
    assert all(calls[n].q.values == calls[n].k.values == calls[n].v.values == "normal" for n in (0, 1))


def test_calls_of_nothing_and_of_one_follow_among_the_first_twelve() -> None:
    shapes = [drawn(nth).shape for nth in range(12)]
    assert not any(0 in (s.batch, s.q_len, s.k_len) or 1 in (s.q_len, s.k_len) for s in shapes[:3])
    assert any(s.batch == 0 for s in shapes)
    assert any(s.q_len == 0 < s.k_len for s in shapes) and any(s.k_len == 0 < s.q_len for s in shapes)
    assert any(s.q_len == 1 < s.k_len for s in shapes) and any(s.q_len == s.k_len == 1 for s in shapes)


def test_lengths_are_as_long_as_may_be_where_that_is_no_two_tiles() -> None:
    for nth in range(8):
        shape = drawn(nth, max_length=3).shape
        assert shape.q_len <= 3 and shape.k_len <= 3


def test_a_failure_shrinks_to_the_smallest_call_of_any_kind() -> None:
    ir = samples.learned_bias()
    tried = 0

    def fails(case: Case) -> bool:
        nonlocal tried
        tried += 1
        shape = case.shape
        return shape.k_len - shape.q_len > 2 and shape.k_len > 20 and shape.heads > shape.kv_heads

    found = smallest(drawn(0), ir, fails, (16, 24))
    shape = found.shape
    assert (shape.batch, shape.heads, shape.kv_heads) == (1, 2, 1)
    assert (shape.q_len, shape.k_len, shape.head_dim, shape.v_dim) == (1, 21, 16, 16)
    assert {found.q.strides, found.k.strides, found.v.strides, found.dout.strides} == {"contiguous"}
    assert tried < 100
    made = found.tensors()
    assert made["q"].shape == (1, 2, 1, 16) and made["k"].shape == (1, 1, 21, 16)


def test_shrinking_keeps_what_the_failure_needs() -> None:
    case = drawn(1)
    odd = replace(case, layout="bshd", k=replace(case.k, strides="reversed"))
    odd = resized(odd, odd.shape, samples.learned_bias())
    found = smallest(
        odd, samples.learned_bias(), lambda c: c.layout == "bshd" and c.k.strides == "reversed", ()
    )
    assert (found.layout, found.k.strides, found.q.strides) == ("bshd", "reversed", "contiguous")
    assert found.shape.q_len == found.shape.k_len == found.shape.batch == found.shape.heads == 1


@pytest.mark.parametrize(
    ("value", "small"), [(16, None), (63, None), (64, 8), (128, 16), (256, 16), (1024, 32), (8192, 32)]
)
def test_a_long_window_is_made_a_tile_or_two_wide(value: int, small: int | None) -> None:
    ir = check_spec(Source(f"variant w\nconst n: int = {value}\nmask = sliding_window(n)")).ir
    assert small_consts(ir) == ({} if small is None else {"n": small})
    assert small_consts(ir, except_for=("n",)) == {}


def test_most_examples_are_of_the_small_build_and_all_are_counted() -> None:
    for examples, shares in ((2, [2]), (5, [4, 1])):
        builds = builds_of(find_spec("sliding_window"), examples)
        assert [count for _, _, count in builds] == shares
        assert [dict(consts) for _, consts, _ in builds] == [{"window": 32}, {}][: len(shares)]
    assert [count for *_, count in builds_of(find_spec("causal"), 5)] == [5]
