"""The CPU path without Triton's interpreter: the reference's maths in float32, in blocks of query rows.

Each block is computed again in the backward, so that memory is linear in the sequence lengths, forward and
backward: never more than ``_BLOCK_SCORES`` scores, or one row, at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from attngen.ir.nodes import AttentionIR
from attngen.ir.types import Scalar
from attngen.reference import Result, attend, bind, draw, heads_first

_Block = Callable[[Tensor], Result]
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
    block_scores: int = _BLOCK_SCORES,
) -> tuple[Tensor, Tensor | None]:
    """``(out, lse)``: out (B,H,Sq,Dv) in q's dtype (``layout="bshd"`` swaps H and S), lse (B,H,Sq) float32.

    lse is None where no softmax is taken. ``block_scores``: how many scores at a time, at least a row's.

    Differentiable in q, k, v and the float inputs, once. Raises what ``reference.attention`` does.
    """
    given = inputs or {}
    q, k, v = (heads_first(t, layout) for t in (q, k, v))
    call = Call(ir, tuple(given), params or {}, draw(ir, seed), block_scores)
    out, lse = _Attention.apply(call, q, k, v, *given.values())  # type: ignore[no-untyped-call]
    return heads_first(out, layout), lse


@dataclass(frozen=True)
class Call:
    """All of a call but its tensors: q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv), inputs by their names."""

    ir: AttentionIR
    names: tuple[str, ...]
    params: Mapping[str, Scalar]
    seed: int
    block_scores: int = _BLOCK_SCORES

    def forward(self, q: Tensor, k: Tensor, v: Tensor, *inputs: Tensor) -> tuple[Tensor, Tensor | None]:
        """``(out, lse)``, lse None where no softmax is taken; no gradient is recorded."""
        with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
            wide = [_widened(t) for t in (k, v, *inputs)]
            outs, log_sums = [], []  # of each block only these: its scores would add up to all of them
            for _, rows, block in self._blocks(q, wide):
                result = block(rows)
                outs.append(result.out.to(q.dtype))
                log_sums += [result.lse] if result.lse is not None else []
        return torch.cat(outs, 2), torch.cat(log_sums, 2) if self.ir.is_softmax else None

    def gradients(
        self, tensors: Sequence[Tensor], wanted: Sequence[bool], d_out: Tensor, d_lse: Tensor | None
    ) -> list[Tensor | None]:
        """The gradients of ``tensors`` (q, k, v and the inputs), None where not wanted."""
        q, *others = (t.detach() for t in tensors)
        wants_q, *wants = wanted
        with torch.enable_grad(), torch.autocast(q.device.type, enabled=False):
            # Widened here, once, so that the blocks' gradients add up in float32.
            wide = [_widened(t).detach().requires_grad_(w) for t, w in zip(others, wants, strict=True)]
            leaves = [t for t in wide if t.requires_grad]
            sums = [torch.zeros_like(t) for t in leaves]
            d_queries = []
            for here, rows, block in self._blocks(q, wide):
                rows = rows.detach().requires_grad_(wants_q)
                result = block(rows)
                pairs = [(result.out.to(q.dtype), d_out[:, :, here])]
                if result.lse is not None and d_lse is not None:
                    pairs.append((result.lse, d_lse[:, :, here]))
                grads = _grad(pairs, [rows, *leaves] if wants_q else leaves)
                d_queries += [grads.pop(0)] if wants_q else []
                for total, part in zip(sums, grads, strict=True):
                    total += part
        own = iter(sums)
        found = [next(own).to(t.dtype) if w else None for t, w in zip(others, wants, strict=True)]
        return [torch.cat(d_queries, 2) if wants_q else None, *found]

    def _blocks(self, q: Tensor, wide: Sequence[Tensor]) -> Iterator[tuple[slice, Tensor, _Block]]:
        """Of each block: which rows it has, these rows of q, and what computes it from them."""
        k, v, *inputs = wide
        env = bind(self.ir, q, k, v, dict(zip(self.names, inputs, strict=True)), self.params)
        batch, heads, _, k_len = env.grid.shape
        length = max(1, self.block_scores // max(1, batch * heads * k_len))

        def block(first: int, rows: Tensor) -> Result:
            grid = replace(env.grid, first_row=first, last_row=first + rows.shape[2])
            return attend(self.ir, rows, k, v, replace(env, grid=grid), self.seed, torch.float32)

        for number, rows in enumerate(torch.split(q, length, 2)):
            first = number * length
            yield slice(first, first + rows.shape[2]), rows, partial(block, first)


def _widened(x: Tensor) -> Tensor:
    return x.float() if x.is_floating_point() else x


def _grad(pairs: Sequence[tuple[Tensor, Tensor]], leaves: Sequence[Tensor]) -> list[Tensor]:
    """The gradients of ``leaves`` from pairs of a result and its gradient; 0 where none depends on it."""
    used = [(x, d) for x, d in pairs if x.requires_grad]
    if not used or not leaves:
        return [torch.zeros_like(x) for x in leaves]
    results, cotangents = zip(*used, strict=True)
    return list(torch.autograd.grad(results, leaves, cotangents, materialize_grads=True))


class _Attention(torch.autograd.Function):
    """A call as a function of its tensors, which are all that is kept for the backward."""

    @staticmethod
    def forward(ctx: Any, call: Call, *tensors: Tensor) -> tuple[Tensor, Tensor | None]:
        ctx.call = call
        ctx.save_for_backward(*tensors)
        return call.forward(*tensors)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_out: Tensor, d_lse: Tensor | None) -> tuple[Tensor | None, ...]:
        return None, *ctx.call.gradients(ctx.saved_tensors, ctx.needs_input_grad[1:], d_out, d_lse)
