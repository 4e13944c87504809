"""On a GPU the kernels draw the same dropout bits as the reference and the interpreter."""

from __future__ import annotations

import pytest
import torch
from golden_bits import golden, probabilities, shown

import attngen
from attngen.dropout_bits import kept

SPEC = "variant dropout_bits\nparam p: float\ndropout = p"


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32], ids=str)
def test_the_kernels_draw_the_golden_bits(dtype: torch.dtype) -> None:
    variant = attngen.compile(SPEC)
    tested = golden(longest=2000)
    assert len(tested) >= 20
    for g in tested:
        for p, is_kept in probabilities(g.word):
            found = shown(variant, g, p, "cuda", dtype)
            assert found == dict.fromkeys(("out", "dq", "dk", "dv"), is_kept), (g, p)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32], ids=str)
def test_every_weight_of_several_tiles_is_kept_where_the_reference_keeps_it(dtype: torch.dtype) -> None:
    """Uniform weights over values that are an identity show each weight."""
    length, keys, seed = 300, 256, 2**63 + 11
    q, k = (torch.zeros(2, 2, n, 64, device="cuda", dtype=dtype) for n in (length, keys))
    v = torch.eye(keys, device="cuda", dtype=dtype).expand(2, 2, keys, keys)
    out = attngen.compile(SPEC)(q, k, v, p=0.4, seed=seed)
    want = kept(0.4, seed, torch.arange(length), torch.arange(keys), 2, 2)
    assert torch.equal(out.cpu() != 0, want)
