"""Floats that decide which keys count, on the GPU: one bit off, and the mask is not the reference's."""

from __future__ import annotations

import pytest
import torch
from gpu_calls import tensors

import attngen
from attngen.testing import assert_matches_reference

MASKS = [
    "floor(k / 49.0 * 49.0) % 2 == 0",
    "int(k / x) == k // 3",
    "sqrt(k) * sqrt(k) == k",
    "0.7 * k - 0.3 * k <= 0.4 * k",  # a fused product skips a rounding
    "int(0.1 * k + t[h]) % 2 == 0",
    "(0.1 * dist) % 0.3 < 0.15",
    "t[int(0.01 * k + 0.3)] < 0.5",
]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
@pytest.mark.parametrize("mask", MASKS)
def test_the_kernels_keep_exactly_the_references_keys(mask: str, dtype: torch.dtype) -> None:
    lines = ["variant decided", "param x: float = 3.0", "input t: float32[heads]", f"mask = {mask}"]
    x = tensors(heads=4, q_len=40, k_len=1000, dtype=dtype)
    levels = torch.tensor([0.1, 0.3, 0.7, 0.9], device="cuda")
    assert_matches_reference(attngen.compile("\n".join(lines)), x.q, x.k, x.v, dout=x.d_out, t=levels)


FAR = [-(2**63), -(2**63) + 1, -(2**62) - 1, -3, 70, 2**62, 2**63 - 2, 2**63 - 1]


@pytest.mark.parametrize("mask", ["k <= last[b]", "last[b] <= k", "dist <= last[b]", "3 * k <= last[b]"])
def test_the_least_and_greatest_inputs_bound_the_right_keys(mask: str) -> None:
    variant = attngen.compile(f"variant bounded\ninput last: int64[batch]\nmask = {mask}")
    x = tensors(batch=len(FAR), q_len=200, k_len=300)
    last = torch.tensor(FAR, device="cuda")
    assert_matches_reference(variant, x.q, x.k, x.v, dout=x.d_out, last=last)
