"""Calls that the checks of the kernels for sm_90 share: sizes, tensors, and how far a result is off."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.variant import Variant


class Sizes(NamedTuple):
    batch: int
    heads: int
    kv_heads: int
    q_len: int
    k_len: int


# Grouped heads, one key head for all, more keys than queries and fewer, a single query, and a long call.
CALLS = [
    Sizes(2, 4, 2, 1000, 1000),
    Sizes(1, 6, 1, 517, 1303),
    Sizes(3, 2, 2, 130, 77),
    Sizes(1, 2, 1, 1, 2000),
    Sizes(1, 2, 1, 4096, 4096),
]


def drawn(batch: int, heads: int, length: int, width: int, dtype: torch.dtype) -> Tensor:
    """Normal numbers [batch, heads, length, width], heads inside rows as a projection leaves them."""
    return torch.randn(batch, length, heads, width, device="cuda", dtype=dtype).transpose(1, 2)


def queries_and_keys(
    sizes: Sizes, head_dim: int, v_dim: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    """q, k and v of a call."""
    batch, heads, kv_heads, q_len, k_len = sizes
    keys = (drawn(batch, kv_heads, k_len, width, dtype) for width in (head_dim, v_dim))
    return drawn(batch, heads, q_len, head_dim, dtype), *keys


def keywords(variant: Variant, q: Tensor, k: Tensor, v: Tensor) -> dict[str, Any]:
    """The variant's own inputs and params, and a seed where it draws."""
    seed = {"seed": 7} if variant.ir.dropout is not None else {}
    return {**plausible_inputs(variant.ir, q, k, v), **plausible_params(variant.ir), **seed}


def relative(x: Tensor, y: Tensor) -> float:
    """|x - y| / |y| in the Euclidean norm; infinite for NaN."""
    error = float((x.double() - y.double()).norm() / y.double().norm().clamp_min(1e-20))
    return error if error == error else float("inf")
