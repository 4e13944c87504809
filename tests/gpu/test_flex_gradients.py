"""The gradients of docs/coming-from.md beside FlexAttention's own, which has a backward on a GPU alone."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, create_block_mask, flex_attention

import attngen

QUERIES, KEYS, REACH = 200, 330, 9
OFFSET = KEYS - QUERIES  # bottom right

RELATIVE = f"""variant relative
input table: float32[heads, {REACH}] grad
score = score + table[h, clamp(dist, 0, {REACH - 1})]
mask  = causal
"""
WITH_SINK = """variant with_sink
input sinks: float32[heads] grad
mask = causal
sink = sinks[h]
"""
Pair = tuple[Tensor, Tensor]
Attention = Callable[[Tensor, Tensor, Tensor, Tensor], Pair]


def flex(q: Tensor, k: Tensor, v: Tensor, score_mod: Callable[..., Tensor] | None = None) -> Pair:
    """(out, lse) of causal FlexAttention, compiled."""
    torch._dynamo.reset()
    mask = create_block_mask(lambda b, h, i, j: i + OFFSET >= j, None, None, QUERIES, KEYS, device="cuda")
    request = AuxRequest(lse=True)
    out, aux = torch.compile(flex_attention)(
        q, k, v, score_mod=score_mod, block_mask=mask, enable_gqa=True, return_aux=request
    )
    return out, aux.lse


def relative(q: Tensor, k: Tensor, v: Tensor, table: Tensor) -> Pair:
    return flex(q, k, v, lambda s, b, h, i, j: s + table[h, (i + OFFSET - j).clamp(0, REACH - 1)])


def with_sink(q: Tensor, k: Tensor, v: Tensor, sinks: Tensor) -> Pair:
    """Flex has no sink: a factor after it, and the same sum."""
    out, lse = flex(q, k, v)
    sink = sinks[:, None]
    return out * torch.sigmoid(lse - sink)[..., None], torch.logaddexp(lse, sink)


@pytest.mark.parametrize(
    ("spec", "name", "shape", "theirs"),
    [(RELATIVE, "table", (4, REACH), relative), (WITH_SINK, "sinks", (4,), with_sink)],
    ids=["relative", "with_sink"],
)
def test_out_lse_and_every_gradient_are_flexattentions(
    spec: str, name: str, shape: tuple[int, ...], theirs: Attention
) -> None:
    generator = torch.Generator("cuda").manual_seed(0)

    def draw(*size: int) -> Tensor:
        return torch.randn(*size, device="cuda", generator=generator)

    q, k, v = draw(2, 4, QUERIES, 32), draw(2, 2, KEYS, 32), draw(2, 2, KEYS, 32)
    leaves = [x.requires_grad_() for x in (q, k, v, draw(*shape))]
    d_out, d_lse = draw(2, 4, QUERIES, 32), draw(2, 4, QUERIES)
    results = []
    for out, lse in (
        attngen.compile(spec)(q, k, v, return_lse=True, **{name: leaves[3]}),
        theirs(q, k, v, leaves[3]),
    ):
        gradients = torch.autograd.grad((out * d_out).sum() + (lse * d_lse).sum(), leaves)
        results.append((out, lse, *gradients))
    for mine, other in zip(*results, strict=True):
        assert mine.abs().sum() > 0
        error = (mine.double() - other.double()).norm() / other.double().norm()
        assert error < 1e-4
