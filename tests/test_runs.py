"""Masks of quotients and remainders: in a tile within one run of the divisor, a quotient is one number."""

from __future__ import annotations

import pytest
import torch
from kernel_calls import judge, small_tiles, variant_of

from attngen.pipeline import compile_spec
from attngen.source import Source

MASKS = {
    "neighbours": "abs(q % 32 - k % 32) <= 3 and abs(q // 32 - k // 32) <= 1",
    "runs alone": "q // 32 == k // 32",
    "the keys' runs alone": "k // 16 % 3 != 1",
    "the queries' runs alone": "q // 32 % 2 == 0",
    "runs of runs": "abs(q // 16 % 2 - k // 16 % 2) <= 0 and q // 32 <= k // 32",
    "several ranges": "k < 20 and k % 32 < 9 or 0 <= dist < 11 and q // 32 == k // 32",
    "longer tiles than runs": "abs(q % 8 - k % 8) <= 2",
    "runs that tiles cross": "abs(q % 24 - k % 24) <= 5 and abs(q // 24 - k // 24) <= 1",
}
QUICK = ("neighbours", "the keys' runs alone")


@pytest.mark.parametrize(
    "name", [n if n in QUICK else pytest.param(n, marks=pytest.mark.slow) for n in MASKS]
)
@pytest.mark.parametrize("k_len", [75, pytest.param(40, marks=pytest.mark.slow)])
def test_masks_by_runs_match_the_reference_at_ragged_lengths(name: str, k_len: int) -> None:
    variant = variant_of(f"mask = {MASKS[name]}")
    with small_tiles(variant):
        judge(variant, q_len=70, k_len=k_len)


def test_a_run_is_one_number_where_tiles_divide_it_and_only_there() -> None:
    source = variant_of("mask = abs(q % 24 - k % 24) <= 5 and abs(q // 64 - k // 64) <= 1").source
    assert "number_of_run(k, n, 64, BLOCK_N)" in source
    assert "k % 24" in source  # no tile of a power of two divides it
    assert "place_in_run" not in source


def test_an_element_found_by_a_run_is_read_inside_its_table() -> None:
    lines = ("input keep: int32[32]", "mask = 0 <= dist < 60 and keep[k % 32] > 0")
    variant = variant_of(*lines)
    with small_tiles(variant):
        judge(variant, q_len=50, k_len=41, call={"keep": (torch.arange(32) % 3).to(torch.int32)})
    text = compile_spec(Source("\n".join(["variant tested", *lines])), backend="hopper").text
    weigh = text[text.index("def weigh(") : text.index("def attend_tiles(")]
    assert "place_in_run(k, n, 32, BLOCK_N)" in text
    assert "k % 32" in weigh and "_run(" not in weigh  # it looks at a tile past the last key, too
