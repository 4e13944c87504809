"""Gradients of learned inputs on the GPU: right, and the same bits in twenty runs, by every strategy."""

from __future__ import annotations

import pytest
import torch
from gpu_calls import tensors
from torch import Tensor

import attngen
from attngen.testing import assert_matches_reference

HEADS, QUERIES, KEYS = 4, 700, 900
SPECS = {
    "per head": ("[heads]", (HEADS,), "score = score - x[h] * abs(dist)"),
    "reach that ends": ("[heads, 81]", (HEADS, 81), "score = score + x[h, clamp(dist, -40, 40) + 40]"),
    "buckets": ("[heads, 32]", (HEADS, 32), "score = score + x[h, t5_bucket(-dist, 32, 128)]"),
    "every distance": ("[heads, n]", (HEADS, KEYS), "score = score + x[h, abs(dist)]\nmask = causal"),
    "one side": ("[heads, 9]", (1, 9), "score = score + x[h, clamp(dist, 0, 8)]\nmask = sliding_window(300)"),
    "dense": ("[batch, heads, q_len, k_len]", (2, HEADS, QUERIES, KEYS), "score = score + x[b, h, q, k]"),
    "shared by the batch": (
        "[batch, heads, q_len, k_len]",
        (1, HEADS, QUERIES, KEYS),
        "score = score + x[b, h, q, k]\nmask = dist < 500",
    ),
    "shared by all": ("[q_len, k_len]", (QUERIES, KEYS), "score = score * (1.0 + x[q, k])"),
    "indirect": ("[heads, 7]", (HEADS, 7), "score = score + x[h, (3 * q + 5 * k) % 7]"),
}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("name", SPECS)
def test_twenty_runs_give_the_references_gradient_in_the_same_bits(name: str, dtype: torch.dtype) -> None:
    dims, shape, lines = SPECS[name]
    variant = attngen.compile(f"variant learned\ninput x: float32{dims} grad\n{lines}\n")
    x = tensors(q_len=QUERIES, k_len=KEYS, heads=HEADS, dtype=dtype)
    generator = torch.Generator("cuda").manual_seed(1)
    learned = (torch.randn(shape, device="cuda", generator=generator) * 0.3).requires_grad_()
    assert_matches_reference(variant, x.q, x.k, x.v, dout=x.d_out, x=learned)

    def gradient() -> Tensor:
        out = variant(x.q, x.k, x.v, x=learned)
        assert isinstance(out, Tensor)
        return torch.autograd.grad(out, learned, x.d_out)[0]

    first = gradient()
    assert first.abs().sum() > 0
    assert all(torch.equal(first, gradient()) for _ in range(19))
