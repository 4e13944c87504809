"""The CPU path without Triton's interpreter: the reference's maths in float32, in blocks of query rows.

Each block is computed again in the backward (activation checkpointing), so that memory is linear in the
sequence lengths, forward and backward: never more than ``_BLOCK_SCORES`` scores, or one row, at a time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.reference import attend, bind, draw, heads_first

_BLOCK_SCORES = 2**20  # 4 MiB of float32 scores: a block and its few copies stay near the cache


def attention(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    params: Mapping[str, Scalar] | None = None,
    seed: int | Tensor | None = None,
    layout: str = "bhsd",
) -> tuple[Tensor, Tensor]:
    """``(out, lse)``: out (B,H,Sq,Dv) in q's dtype (``layout="bshd"`` swaps H and S), lse (B,H,Sq) float32.

    Differentiable in q, k, v and the float inputs. Raises what ``reference.attention`` does.
    """
    own = q.dtype
    q, k, v = (heads_first(t, layout) for t in (q, k, v))
    env = bind(ir, q, k, v, inputs or {}, params or {})
    drawn = draw(ir, seed)
    names = list(env.inputs)
    # Widened here, once, so that the blocks' gradients add up in float32.
    tensors = [t.float() if t.is_floating_point() else t for t in env.inputs.values()]
    wide_k, wide_v = k.float(), v.float()

    def block(first: int, q: Tensor, k: Tensor, v: Tensor, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        part = replace(
            env,
            grid=replace(env.grid, first_row=first, last_row=first + q.shape[2]),
            inputs=dict(zip(names, tensors, strict=True)),
        )
        result = attend(ir, q, k, v, part, drawn, torch.float32)
        return result.out.to(own), result.lse

    batch, heads, _, k_len = env.grid.shape
    rows = max(1, _BLOCK_SCORES // max(1, batch * heads * k_len))
    parts = [
        checkpoint(
            block,
            number * rows,
            q_block,
            wide_k,
            wide_v,
            *tensors,
            use_reentrant=False,
            preserve_rng_state=False,  # dropout is a function of the seed and the position alone
        )
        for number, q_block in enumerate(torch.split(q, rows, 2))
    ]
    out = torch.cat([o for o, _ in parts], 2)
    return heads_first(out, layout), torch.cat([lse for _, lse in parts], 2)
