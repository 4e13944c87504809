"""A launch that is repeated gives what torch's operators give, bit for bit, on tensors at other addresses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from gpu_calls import Tensors, keywords, tensors
from torch import Tensor

import attngen
from attngen.testing.tensor import Recipe
from attngen.variant import Variant

SLOPES = """variant slopes
input slopes: float32[heads] grad
input sinks: float32[heads] grad
score = score - slopes[h] * dist
mask = causal
sink = sinks[h]
"""


def through_operators(variant: Variant, x: Tensors, deterministic: bool) -> tuple[Tensor, ...]:
    module: Any = variant.module
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "is_plain", lambda *tensors: False)
        return through_call(variant, x, deterministic)


def through_call(variant: Variant, x: Tensors, deterministic: bool) -> tuple[Tensor, ...]:
    named = keywords(variant, x)
    learned = [named[i.name].requires_grad_() for i in variant.ir.inputs if i.grad]
    out, lse = variant(x.q, x.k, x.v, **named, return_lse=True, deterministic=deterministic)
    with torch.no_grad():
        again = variant(x.q, x.k, x.v, **named)
    dq, dk, dv, *own = torch.autograd.grad(out, (x.q, x.k, x.v, *learned), x.d_out)
    return (again, out, lse, dk, dv, *own, *([dq] if deterministic else []))


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize(
    ("name", "head_dim"),
    [("causal", 64), ("full", 128), ("dropped", 64), ("gpt_oss", 64), ("gpt_oss", 256), (SLOPES, 128)],
)
def test_a_call_seen_before_has_the_operators_bits(name: str, head_dim: int, deterministic: bool) -> None:
    variant = attngen.compile(name) if "\n" in name else attngen.load(name)
    module: Any = variant.module
    module.CALLS.clear()
    kept = []
    for seed in range(4):
        x = tensors(q_len=200, head_dim=head_dim, seed=seed)
        if seed == 1:  # a backward that other kernels give, and that is not repeated
            x = replace(x, d_out=Recipe(tuple(x.d_out.shape), "bfloat16", strides="offset").build("cuda"))
        kept.append(x)  # so that every call has other addresses
        found, want = (run(variant, x, deterministic) for run in (through_call, through_operators))
        assert all(torch.equal(one, two) for one, two in zip(found, want, strict=True))
    repeats = [repeat for call in module.CALLS.values() for repeat in call.repeats.values()]
    assert len(repeats) == 3  # a forward with gradients and its backward, and one without
    assert None not in repeats
