"""The implementations that a row is run with: attngen's kernel and those it is measured against.

A peer says why it cannot run a row, or prepares a call of (q, k, v). All prepare for training: the call keeps
what its backward needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from attngen.bench.formulas import FORMULAS
from attngen.bench.rows import Row, Shape
from attngen.ir.types import Scalar
from attngen.spec_file import find_spec
from attngen.variant import Variant, build_variant

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]

SEED = 2026


@dataclass(frozen=True)
class Case:
    """One row at one shape: q, k, v that require gradients, the gradient of the result, and the inputs."""

    row: Row
    shape: Shape
    q: Tensor
    k: Tensor
    v: Tensor
    d_out: Tensor
    inputs: dict[str, Tensor]

    @property
    def keywords(self) -> dict[str, Any]:
        """What the variant's call takes beside q, k and v."""
        seed = {"seed": SEED} if self.row.dropout else {}
        return {**self.inputs, **self.row.params, **seed}


def make_case(row: Row, shape: Shape, dtype: torch.dtype, device: torch.device) -> Case:
    """Tensors of standard normal numbers: zeros, or numbers alike, would flatter a power-limited card."""
    shape = row.at(shape)
    generator = torch.Generator(device).manual_seed(SEED)

    def drawn(sizes: tuple[int, ...]) -> Tensor:
        return torch.randn(sizes, generator=generator, device=device, dtype=torch.float32).to(dtype)

    q, k, v = (drawn(sizes).requires_grad_() for sizes in (shape.q, shape.k, shape.k))
    return Case(row, shape, q, k, v, drawn(shape.q), row.inputs(shape, device))


@dataclass(frozen=True)
class Peer:
    """``refuses`` says why this peer cannot run a row, or nothing; ``prepare`` makes its call."""

    name: str
    title: str
    refuses: Callable[[Row], str]
    prepare: Callable[[Case], Attention]


def variant_of(row: Row) -> Variant:
    return _built(row.spec, tuple(row.consts.items()))


@cache
def _built(spec: str, consts: tuple[tuple[str, Scalar], ...]) -> Variant:
    return build_variant(find_spec(spec), overrides=dict(consts))


def _attngen(case: Case) -> Attention:
    return cast(Attention, partial(variant_of(case.row), **case.keywords))  # no lse is asked for


def _flex(case: Case) -> Attention:
    from torch.nn.attention.flex_attention import create_block_mask, flex_attention

    formula = FORMULAS[case.row.name]
    score = formula.score(case.inputs) if formula.score else None
    block_mask = None
    if formula.mask:
        batch = case.shape.batch if formula.mask_reads_batch else None
        length, device = case.shape.length, case.q.device
        block_mask = create_block_mask(formula.mask(case.inputs), batch, None, length, length, device=device)
    grouped = case.shape.group > 1
    if case.q.device.type != "cuda":  # eager, for dry runs
        return partial(flex_attention, score_mod=score, block_mask=block_mask, enable_gqa=grouped)
    _allow_many_compiles()
    compiled = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    return partial(compiled, score_mod=score, block_mask=block_mask, enable_gqa=grouped)


def _allow_many_compiles() -> None:
    """Let one process compile every row, and run a compiled backward again on the same graph."""
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    dynamo.recompile_limit = 256  # beyond the default of 8, FlexAttention would run unfused
    dynamo.accumulated_recompile_limit = 1024
    functorch.donated_buffer = False  # else retain_graph=True is refused
    inductor.compile_threads = 1  # a pool of processes warms the caches already


def _sdpa(backend: SDPBackend, case: Case) -> Attention:
    causal, dropout, grouped = case.row.name != "full", case.row.dropout, case.shape.group > 1

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([backend]):
            return functional.scaled_dot_product_attention(
                q, k, v, dropout_p=dropout, is_causal=causal, enable_gqa=grouped
            )

    return call


def _standard(case: Case) -> Attention:
    formula, row, length, device = FORMULAS[case.row.name], case.row, case.shape.length, case.q.device
    score = formula.score(case.inputs) if formula.score else None
    sizes = (case.shape.batch, case.shape.heads, length, length)
    b, h, i, j = (
        torch.arange(n, device=device).view([-1 if axis == own else 1 for axis in range(4)])
        for own, n in enumerate(sizes)
    )
    hidden = ~formula.mask(case.inputs)(b, h, i, j) if formula.mask else None
    scale, group = case.shape.head_dim**-0.5, case.shape.group

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        logits = (q @ k.mT) * scale
        if score is not None:
            logits = score(logits, b, h, i, j)
        if hidden is not None:
            logits = logits.masked_fill(hidden, float("-inf"))
        weights = torch.softmax(logits, -1, dtype=torch.float32).to(v.dtype)
        return functional.dropout(weights, row.dropout) @ v

    return call


def _all_but_dropout(row: Row) -> str:
    return "no dropout" if row.dropout else ""


def _plain_rows(row: Row) -> str:
    return "" if row.name in ("full", "causal", "dropout") else "takes no score or mask function"


def _any_row(row: Row) -> str:
    return ""


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("attngen", "attngen", _any_row, _attngen),
        Peer("flex", "FlexAttention", _all_but_dropout, _flex),
        Peer("cudnn", "SDPA cuDNN", _plain_rows, partial(_sdpa, SDPBackend.CUDNN_ATTENTION)),
        Peer("fa2", "SDPA FA2", _plain_rows, partial(_sdpa, SDPBackend.FLASH_ATTENTION)),
        Peer("standard", "standard", _any_row, _standard),
    )
}


def head_slice(case: Case) -> Case:
    """The first key head of the first batch with its query heads: small enough for the dense reference.

    Inputs keep what belongs to these heads. Dropout draws by batch and head, so the slice's bits are equal.
    """
    ir = variant_of(case.row).ir
    group = case.shape.group
    first = {"batch": 1, "heads": group, "kv_heads": 1}
    inputs = {}
    for declared in ir.inputs:
        tensor = case.inputs[declared.name]
        for axis, dim in enumerate(declared.dims):
            tensor = tensor.narrow(axis, 0, min(first.get(str(dim), tensor.shape[axis]), tensor.shape[axis]))
        inputs[declared.name] = tensor

    def leaf(x: Tensor, heads: int) -> Tensor:
        return x.detach()[:1, :heads].clone().requires_grad_()

    q, k, v = leaf(case.q, group), leaf(case.k, 1), leaf(case.v, 1)
    shape = replace(case.shape, batch=1, heads=group)
    return Case(case.row, shape, q, k, v, case.d_out[:1, :group], inputs)
