"""The implementations that a row is run with: attngen's kernel and those it is measured against.

A peer says why it cannot run a row, or prepares a call of (q, k, v). All prepare for training: the call keeps
what its backward needs. What a peer must make anew for each mask and length before it can be called
(FlexAttention's block mask) is a part of its own, so that it can be timed.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache, partial
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

from attngen import reference
from attngen.bench import from_ir
from attngen.bench.flash import PACKAGES, Package, zoo_ir
from attngen.bench.formulas import FORMULAS, Formula
from attngen.bench.rows import Row, Shape
from attngen.eager import evaluate
from attngen.ir.nodes import SCORE, TRUE, AttentionIR
from attngen.ir.types import Scalar
from attngen.pipeline import compile_spec
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
    def leaves(self) -> dict[str, Tensor]:
        """What gradients are asked of: q, k, v and the learned inputs."""
        learned = {name: x for name, x in self.inputs.items() if x.requires_grad}
        return {"q": self.q, "k": self.k, "v": self.v, **learned}

    @property
    def sizes(self) -> dict[str, int]:
        """Every size that a spec can name."""
        env = reference.bind(variant_of(self.row).ir, self.q, self.k, self.v, self.inputs, self.row.params)
        return {**env.sizes, **env.grid.sizes}

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
    inputs = row.inputs(shape, device)
    for declared in variant_of(row).ir.inputs:
        if declared.grad and not row.frozen:
            inputs[declared.name].requires_grad_()
    return Case(row, shape, q, k, v, drawn(shape.q), inputs)


@dataclass(frozen=True)
class Peer:
    """``refuses`` says why this peer cannot run a row, or nothing; ``prepare`` makes its call.

    ``build`` does again, alone, what ``prepare`` does for each mask and length; None where that is nothing.
    ``build_lean`` does it in less memory; ``prepare`` falls back on it where the memory is not enough.
    """

    name: str
    title: str
    refuses: Callable[[Row], str]
    prepare: Callable[[Case], Attention]
    build: Callable[[Case], object] | None = None
    build_lean: Callable[[Case], object] | None = None


def variant_of(row: Row, backend: str = "auto") -> Variant:
    return _built(row.spec, tuple(row.consts.items()), backend)


@cache
def _built(spec: str, consts: tuple[tuple[str, Scalar], ...], backend: str) -> Variant:
    return build_variant(find_spec(spec), overrides=dict(consts), backend=backend)


def formula_of(case: Case) -> Formula:
    """A row's functions by hand, or a spec's by machine."""
    if case.row.name in FORMULAS:
        return FORMULAS[case.row.name]
    ir = variant_of(case.row).ir
    params = {**{p.name: p.default for p in ir.params if p.default is not None}, **case.row.params}
    return from_ir.formula(ir, params, case.sizes)


def scale_of(case: Case) -> float:
    """What the product of q and k is multiplied with."""
    ir = variant_of(case.row).ir
    env = reference.bind(ir, case.q, case.k, case.v, case.inputs, case.row.params)
    return float(evaluate(ir.scale, env, torch.float32))


def _attngen(case: Case, backend: str = "auto") -> Attention:
    return cast(Attention, partial(variant_of(case.row, backend), **case.keywords))  # no lse is asked for


def _block_mask(case: Case, *, compiled: bool = False) -> Any:
    """FlexAttention's table of blocks, as its documentation makes it; None where nothing is masked.

    ``compiled``: fused, so that the mask of all scores never lies in memory.
    """
    from torch.nn.attention.flex_attention import create_block_mask

    formula = formula_of(case)
    if formula.mask is None:
        return None
    batch = case.shape.batch if formula.mask_reads_batch else None
    heads = case.shape.heads if formula.mask_reads_heads else None
    length, device = case.shape.length, case.q.device
    mask = formula.mask(case.inputs)
    return create_block_mask(mask, batch, heads, length, length, device=device, _compile=compiled)


def _block_mask_that_fits(case: Case) -> Any:
    with contextlib.suppress(torch.cuda.OutOfMemoryError):
        return _block_mask(case)
    torch.cuda.empty_cache()
    return _block_mask(case, compiled=True)


def _flex(case: Case, options: dict[str, str] | None = None) -> Attention:
    from torch.nn.attention.flex_attention import AuxRequest, flex_attention

    formula = formula_of(case)
    score = formula.score(case.inputs) if formula.score else None
    block_mask, scale = _block_mask_that_fits(case), scale_of(case)
    given: dict[str, Any] = {
        "score_mod": score,
        "block_mask": block_mask,
        "scale": scale,
        "enable_gqa": case.shape.group > 1,
    }
    if options is not None:
        given["kernel_options"] = options
    attend: Any = flex_attention
    if case.q.device.type == "cuda":  # else eager, for dry runs
        _allow_many_compiles()
        attend = torch.compile(flex_attention, dynamic=False, fullgraph=True)
    if formula.sink is None:
        return partial(attend, **given)
    b, h, i, _ = _places(case)
    sink = formula.sink(case.inputs)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        # One more logit in a row's sum takes the same part of all its weights.
        out, aux = attend(q, k, v, **given, return_aux=AuxRequest(lse=True))
        without: Tensor = out
        return without * torch.sigmoid(aux.lse[..., None] - sink(b, h, i)).to(without.dtype)

    return call


def _flash(package: Package, case: Case) -> Attention:
    return package.prepare(case.row, case.inputs, scale_of(case))


def _flex_flash(case: Case) -> Attention:
    return _flex(case, {"BACKEND": "FLASH"})


def _allow_many_compiles() -> None:
    """Let one process compile every row, and run a compiled backward again on the same graph."""
    import torch._dynamo.config as dynamo
    import torch._functorch.config as functorch
    import torch._inductor.config as inductor

    dynamo.recompile_limit = 256  # beyond the default of 8, FlexAttention would run unfused
    dynamo.accumulated_recompile_limit = 1024
    functorch.donated_buffer = False  # else retain_graph=True is refused
    inductor.compile_threads = 1  # a pool of processes warms the caches already


def _sdpa(backend: SDPBackend | None, case: Case) -> Attention:
    """None: the back end is torch's choice, and naming it takes no part of the host's time."""
    causal, dropout, grouped = is_causal(variant_of(case.row).ir), case.row.dropout, case.shape.group > 1
    chosen = partial(
        functional.scaled_dot_product_attention,
        dropout_p=dropout,
        is_causal=causal,
        scale=scale_of(case),
        enable_gqa=grouped,
    )

    if backend is None:
        return chosen

    def named(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        with sdpa_kernel([backend]):
            return chosen(q, k, v)

    return named


def _places(case: Case) -> tuple[Tensor, ...]:
    """(b, h, q, k) as tensors that broadcast to all scores."""
    sizes = (case.shape.batch, case.shape.heads, case.shape.length, case.shape.length)
    return tuple(
        torch.arange(n, device=case.q.device).view([-1 if axis == own else 1 for axis in range(4)])
        for own, n in enumerate(sizes)
    )


def _standard(case: Case) -> Attention:
    formula, row = formula_of(case), case.row
    score = formula.score(case.inputs) if formula.score else None
    sink = formula.sink(case.inputs) if formula.sink else None
    b, h, i, j = _places(case)
    hidden = ~formula.mask(case.inputs)(b, h, i, j) if formula.mask else None
    scale, group = scale_of(case), case.shape.group

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        if group > 1:
            k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
        logits = (q @ k.mT) * scale
        if score is not None:
            logits = score(logits, b, h, i, j)
        if hidden is not None:
            logits = logits.masked_fill(hidden, float("-inf"))
        if sink is not None:
            column = sink(b, h, i).to(logits.dtype).expand(*logits.shape[:3], 1)
            logits = torch.cat([logits, column], -1)
        weights = torch.softmax(logits, -1, dtype=torch.float32).to(v.dtype)
        if sink is not None:
            weights = weights[..., :-1]
        return functional.dropout(weights, row.dropout) @ v

    return call


def is_causal(ir: AttentionIR) -> bool:
    """Whether a spec masks exactly the keys after the query's own."""
    return ir.mask == zoo_ir("causal").mask


def _no_flex(row: Row) -> str:
    return from_ir.refusal(variant_of(row).ir)


def _no_flex_flash(row: Row) -> str:
    """FlexAttention's own back end in FlashAttention-4's kernels, which have to be installed."""
    return PACKAGES["flash4"].missing() or _no_flex(row)


def _no_hopper(row: Row) -> str:
    backend = compile_spec(find_spec(row.spec), overrides=row.consts, backend="hopper").plan.backend
    return backend.reason if backend.is_refused else ""


def _no_sdpa(row: Row) -> str:
    ir = variant_of(row).ir
    if ir.final_score is not SCORE or not (ir.mask is TRUE or is_causal(ir)):
        return "takes no score or mask function"
    return "no sink" if ir.sink is not None else from_ir.beyond_softmax(ir)


def _no_standard(row: Row) -> str:
    return from_ir.beyond_softmax(variant_of(row).ir)


def _anything(row: Row) -> str:
    return ""


PEERS: dict[str, Peer] = {
    peer.name: peer
    for peer in (
        Peer("attngen", "attngen", _anything, _attngen),
        Peer("triton", "attngen, Triton", _anything, partial(_attngen, backend="triton")),
        Peer("hopper", "attngen, Gluon", _no_hopper, partial(_attngen, backend="hopper")),
        Peer("flex", "FlexAttention", _no_flex, _flex, _block_mask, partial(_block_mask, compiled=True)),
        Peer("flex_flash", "FlexAttention FLASH", _no_flex_flash, _flex_flash, _block_mask),
        Peer("cudnn", "SDPA cuDNN", _no_sdpa, partial(_sdpa, SDPBackend.CUDNN_ATTENTION)),
        Peer("fa2", "SDPA FA2", _no_sdpa, partial(_sdpa, SDPBackend.FLASH_ATTENTION)),
        Peer("sdpa", "SDPA", _no_sdpa, partial(_sdpa, None)),
        Peer("standard", "standard", _no_standard, _standard),
        *(
            Peer(name, f"FlashAttention-{name[-1]}", package.refuses, partial(_flash, package))
            for name, package in PACKAGES.items()
        ),
    )
}

#: What is measured where nobody says otherwise.
USUAL_PEERS = ("attngen", "flex", "cudnn", "fa2", "standard")


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
        learned = tensor.requires_grad
        inputs[declared.name] = tensor.detach().clone().requires_grad_() if learned else tensor

    def leaf(x: Tensor, heads: int) -> Tensor:
        return x.detach()[:1, :heads].clone().requires_grad_()

    q, k, v = leaf(case.q, group), leaf(case.k, 1), leaf(case.v, 1)
    shape = replace(case.shape, batch=1, heads=group)
    return Case(case.row, shape, q, k, v, case.d_out[:1, :group], inputs)
