"""Calls that the GPU tests share: tensors, and a variant run forward and backward on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.variant import Variant


@dataclass
class Tensors:
    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor


def tensors(
    batch: int = 2,
    heads: int = 4,
    kv_heads: int = 2,
    q_len: int = 100,
    k_len: int | None = None,
    head_dim: int = 64,
    dtype: torch.dtype = torch.bfloat16,
    device: str = "cuda",
    seed: int = 0,
) -> Tensors:
    """Normal numbers; q, k and v require gradients."""
    generator = torch.Generator(device).manual_seed(seed)

    def drawn(n: int, length: int) -> Tensor:
        return torch.randn(batch, n, length, head_dim, device=device, generator=generator).to(dtype)

    keys = q_len if k_len is None else k_len
    q, k, v = drawn(heads, q_len), drawn(kv_heads, keys), drawn(kv_heads, keys)
    return Tensors(q.requires_grad_(), k.requires_grad_(), v.requires_grad_(), drawn(heads, q_len))


def keywords(variant: Variant, x: Tensors) -> dict[str, Any]:
    torch.manual_seed(0)  # the inputs are the same in every call of a test
    seed = {"seed": 7} if variant.ir.dropout is not None else {}
    return {**plausible_inputs(variant.ir, x.q, x.k, x.v), **plausible_params(variant.ir), **seed}


def run(variant: Variant, x: Tensors, **more: Any) -> dict[str, Tensor]:
    """out, lse, dq, dk and dv of one call."""
    out, lse = variant(x.q, x.k, x.v, return_lse=True, **{**keywords(variant, x), **more})
    grads = torch.autograd.grad(out, (x.q, x.k, x.v), x.d_out.to(out.dtype))
    return dict(zip(("out", "lse", "dq", "dk", "dv"), (out.detach(), lse.detach(), *grads), strict=True))


def relative(x: Tensor, y: Tensor) -> float:
    """|x - y| / |y| in the Euclidean norm."""
    x, y = x.detach().double(), y.detach().double()
    return float((x - y).norm() / y.norm().clamp_min(1e-30))


def alike(found: Iterable[Tensor], wanted: Iterable[Tensor]) -> bool:
    """Whether all differ by no more than roundings: the fused backward sums dQ in no certain order."""
    return all(relative(x, y) < 4e-3 for x, y in zip(found, wanted, strict=True))
