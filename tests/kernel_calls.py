"""What the kernel tests share: variants of a few lines of spec, built once, and tensors to call them with."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

import attngen
from attngen.testing import assert_matches_reference
from attngen.testing.reach import small_tiles as small_tiles
from attngen.testing.tensor import Recipe
from attngen.variant import Variant


@cache
def variant_of(*lines: str) -> Variant:
    """The variant that these lines specify, under the name ``tested``: its Triton kernels alone, all that the
    interpreter runs."""
    return attngen.compile("\n".join(["variant tested", *lines]), backend="triton")


def qkv(
    *,
    batch: int = 1,
    heads: int = 1,
    kv_heads: int | None = None,
    q_len: int = 13,
    k_len: int | None = None,
    head_dim: int = 16,
    v_dim: int | None = None,
    dtype: str = "float32",
    strides: str = "contiguous",
    layout: str = "bhsd",
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of these sizes, the same at every call."""
    kv_heads = heads if kv_heads is None else kv_heads
    k_len = q_len if k_len is None else k_len
    v_dim = head_dim if v_dim is None else v_dim
    shapes = (
        (batch, heads, q_len, head_dim),
        (batch, kv_heads, k_len, head_dim),
        (batch, kv_heads, k_len, v_dim),
    )
    if layout == "bshd":
        shapes = tuple((b, s, h, d) for b, h, s, d in shapes)  # type: ignore[assignment]
    q, k, v = (Recipe(s, dtype, strides, seed=n).build() for n, s in enumerate(shapes))
    return q, k, v


def judge(variant: Variant, *, call: dict[str, Any] | None = None, **sizes: Any) -> None:
    """Forward and backward on tensors of these sizes, against the reference; ``call`` has the keywords."""
    assert_matches_reference(variant, *qkv(**sizes), layout=sizes.get("layout", "bhsd"), **(call or {}))


def gradients(variant: Variant, q: Tensor, k: Tensor, v: Tensor, **call: Any) -> tuple[Tensor, ...]:
    """(out, lse, dq, dk, dv) for fixed cotangents of out and lse."""
    leaves = [x.detach().clone().requires_grad_() for x in (q, k, v)]
    out, lse = variant(*leaves, return_lse=True, **call)
    d_out, d_lse = (
        Recipe(tuple(out.shape), seed=7).build().to(out.dtype),
        Recipe(tuple(lse.shape), seed=8).build(),
    )
    return (out.detach(), lse.detach(), *torch.autograd.grad([out, lse], leaves, [d_out, d_lse]))


def same_bits(one: tuple[Tensor, ...], other: tuple[Tensor, ...]) -> bool:
    return all(torch.equal(x, y) for x, y in zip(one, other, strict=True))
