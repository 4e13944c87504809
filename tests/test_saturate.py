"""Bounds of loops and what holds them back: texts, and kernels called with the least and greatest numbers."""

from __future__ import annotations

import pytest
import torch
from ir_text import expr, show
from kernel_calls import judge, small_tiles, variant_of

from attngen.analysis.block_range import key_ranges
from attngen.analysis.interval import Values
from attngen.analysis.saturate import Saturation
from attngen.ir.nodes import Input

DTYPES = {"far": "int64", "lens": "int32"}


@pytest.mark.parametrize(
    ("end", "held"),
    [
        ("lens[b] + 1", "lens[b] + 1"),
        ("far[b]", "far[b]"),
        ("far[b] + 1", f"min(far[b], {2**62}) + 1"),
        ("q_first - far[b]", f"q_first - max(far[b], {-(2**62)})"),
        ("far[b] * 3", f"max(min(far[b], {2**62 // 3}), {-(2**62 // 3)}) * 3"),
        ("-far[b]", f"-max(far[b], {-(2**62)})"),
        ("far[b] // 3 + 1", "far[b] // 3 + 1"),
        ("min(far[b] + 1, k_len)", f"min(min(far[b], {2**62}) + 1, k_len)"),
        ("where(far[b] + 1 <= 3, q_first, 0)", f"where(min(far[b], {2**62}) + 1 <= 3, q_first, 0)"),
        ("far[b] - far[h]", None),
        ("far[b] * far[h]", None),
        ("where(far[b] - far[h] <= 3, q_first, 0)", None),
    ],
)
def test_a_bound_is_held_back_where_it_may_wrap_and_only_there(end: str, held: str | None) -> None:
    found = Saturation(Values(DTYPES)).end(expr(end))
    assert (None if found is None else show(found)) == (None if held is None else show(expr(held)))


def test_a_comparison_that_may_wrap_bounds_nothing() -> None:
    inputs = (Input("far", "int64", ("batch",)),)
    for mask in ("k < far[b] + 1", "k + far[b] <= 3", "0 <= dist or far[b] + 1 < 3"):
        (keys,) = key_ranges(expr(mask), inputs)
        assert keys.possible.lo is None and keys.possible.hi is None
        assert keys.certain is None or "far" not in show(keys.certain.hi)


NUMBERS = {
    "int32": [-(2**31), -(2**31) + 1, -3, 9, 2**31 - 2, 2**31 - 1],
    "int64": [-(2**63), -(2**63) + 1, -(2**62) - 1, -3, 9, 2**62, 2**63 - 2, 2**63 - 1],
}


@pytest.mark.parametrize("dtype", NUMBERS)
@pytest.mark.parametrize(
    "mask",
    ["k <= last[b]", "k < last[b]", "last[b] <= k", "k < last[b] + 1", "dist <= last[b]", "3 * k <= last[b]"],
)
def test_kernels_keep_the_right_keys_for_the_least_and_greatest_inputs(mask: str, dtype: str) -> None:
    variant = variant_of(f"input last: {dtype}[batch]", f"mask = {mask}")
    last = torch.tensor(NUMBERS[dtype], dtype=getattr(torch, dtype))
    with small_tiles(variant):
        judge(variant, batch=len(last), q_len=19, k_len=37, call={"last": last})


@pytest.mark.parametrize("w", NUMBERS["int32"])
@pytest.mark.parametrize("mask", ["k >= q - w", "abs(dist) <= w", "w <= k - q", "k * 2 < w + q"])
def test_kernels_keep_the_right_keys_for_the_least_and_greatest_params(mask: str, w: int) -> None:
    variant = variant_of("param w: int", f"mask = {mask}")
    with small_tiles(variant):
        judge(variant, q_len=19, k_len=37, call={"w": w})
