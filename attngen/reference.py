"""The oracle: what a variant means, dense and eager, differentiable by torch's own autograd.

out = dropout(weight(softmax(where(mask, score, -inf), with the sink's logit))) V, in float64 unless told
otherwise; or sigmoid(score + bias) or relu(score) for the softmax, and 0 where the mask is False.
Nothing here is tiled, skipped or derived: it defines correctness and is never imported by what it judges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from attngen.dropout_bits import kept
from attngen.eager import Environment, Grid, evaluate, gather, rounded
from attngen.ir.nodes import AttentionIR, Expr, Normalize, Op, leaves
from attngen.ir.types import Scalar, Type

_INF = float("inf")


def attention(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    params: Mapping[str, Scalar] | None = None,
    seed: int | Tensor | None = None,
    return_lse: bool = False,
    layout: str = "bhsd",
    dtype: torch.dtype = torch.float64,
) -> Tensor | tuple[Tensor, Tensor]:
    """The variant's attention: ``out``, or ``(out, lse)``, in ``dtype`` (float64 or float32).

    q (B,H,Sq,D), k (B,Hkv,Sk,D), v (B,Hkv,Sk,Dv), out (B,H,Sq,Dv), lse (B,H,Sq), natural logarithm;
    ``layout="bshd"`` swaps H and S of q, k, v and out. Gradients flow to q, k, v and the float inputs.
    ``seed`` (64 bits) is for dropout; None draws one from torch's generator.
    A missing or unknown input or param is a TypeError; a dropout outside [0, 1] a ValueError, and so is
    ``return_lse`` where no softmax is taken.
    """
    if return_lse and not ir.is_softmax:
        raise ValueError(f"return_lse: normalize = {ir.normalize.value} has no log-sum-exp")
    q, k, v = (heads_first(t, layout).to(dtype) for t in (q, k, v))
    env = bind(ir, q, k, v, inputs or {}, params or {})
    env = replace(env, inputs={n: t.to(dtype) if t.is_floating_point() else t for n, t in env.inputs.items()})
    result = attend(ir, q, k, v, env, draw(ir, seed), dtype)
    out = heads_first(result.out, layout)
    return (out, result.lse) if return_lse and result.lse is not None else out


def baseline(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    inputs: Mapping[str, Tensor] | None = None,
    params: Mapping[str, Scalar] | None = None,
    seed: int | Tensor | None = None,
    layout: str = "bhsd",
    degree: int | None = 1,
) -> tuple[Tensor, Tensor | None]:
    """``(out, lse)`` by dense maths as PyTorch runs it in the tensors' dtype, scores rounded to it.

    The yardstick of the numerics criterion: a kernel may err about as much as this does. So it rounds
    where a kernel that keeps only out and lse must: its backward takes delta = rowsum(dO * O) from the
    rounded out (Dao et al. 2022, "FlashAttention", arXiv:2205.14135, algorithm 4), not from the exact
    sum of P * dP, beside which every such kernel fails where one key has all the weight. ``degree``: that of
    the weight clause, by which delta is multiplied; None where delta is summed up key by key.
    """
    own = q.dtype
    q, k, v = (heads_first(t, layout).float() for t in (q, k, v))
    env = bind(ir, q, k, v, inputs or {}, params or {})
    result = attend(ir, q, k, v, env, draw(ir, seed), torch.float32, rounded_to=own, degree=degree)
    return heads_first(result.out, layout).to(own), result.lse


def heads_first(tensor: Tensor, layout: str) -> Tensor:
    """(B,H,S,D) from either layout, and back, since the swap is its own inverse."""
    if layout not in ("bhsd", "bshd"):
        raise ValueError(f"layout is 'bhsd' or 'bshd', not {layout!r}")
    return tensor.transpose(1, 2) if layout == "bshd" else tensor


def draw(ir: AttentionIR, seed: int | Tensor | None) -> int:
    """The seed as an int; None draws one from torch's generator where the variant has dropout."""
    if seed is None:
        return int(torch.randint(-(2**63), 2**63 - 1, ()).item()) if ir.dropout is not None else 0
    return int(seed.item()) if isinstance(seed, Tensor) else seed


def bind(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Scalar],
) -> Environment:
    """The environment of a call: params completed and rounded to float32, sizes read off the inputs."""
    _check_names("input", {i.name for i in ir.inputs}, set(inputs), {i.name for i in ir.inputs})
    required = {p.name for p in ir.params if p.default is None}
    _check_names("param", {p.name for p in ir.params}, set(params), required)
    values: dict[str, Scalar] = {}
    for p in ir.params:
        given = params.get(p.name, p.default)
        assert given is not None
        values[p.name] = torch.tensor(given, dtype=torch.float32).item() if p.type is Type.FLOAT else given
    sizes: dict[str, int] = {}
    for declared in ir.inputs:
        shape = inputs[declared.name].shape
        if len(shape) != len(declared.dims):
            raise ValueError(f"input {declared.name!r} has {len(declared.dims)} dims, got {tuple(shape)}")
        for dim, n in zip(declared.dims, shape, strict=True):
            if isinstance(dim, str) and (sizes.get(dim, 1) == 1):
                sizes[dim] = n  # a 1 broadcasts, so another input may still say the true size
    batch, heads, q_len, head_dim = q.shape
    kv_heads, k_len, v_dim = k.shape[1], k.shape[2], v.shape[3]
    if kv_heads and heads % kv_heads:
        raise ValueError(f"{heads} query heads do not divide into {kv_heads} key heads")
    grid = Grid(batch, heads, kv_heads, q_len, k_len, head_dim, v_dim, 0, q_len, q.device)
    known = {**sizes, **grid.sizes}  # an input that broadcasts does not say how large a word's size is
    lengths = {i.name: _length(i.dims[-1], known) for i in ir.inputs if i.dims}
    return Environment(grid, dict(inputs), values, sizes, lengths=lengths)


def _length(dim: str | int, sizes: Mapping[str, int]) -> int:
    return dim if isinstance(dim, int) else sizes[dim]


def _check_names(kind: str, declared: set[str], given: set[str], required: set[str]) -> None:
    if unknown := sorted(given - declared):
        raise TypeError(f"unknown {kind} {unknown[0]!r}")
    if missing := sorted(required - given):
        raise TypeError(f"missing {kind} {missing[0]!r}")


@dataclass(frozen=True)
class Result:
    """``out`` (B,H,R,Dv), ``lse`` (B,H,R), and the final ``score`` (B,H,R,K) with the ``kept`` positions.

    ``lse`` is None where no softmax is taken; ``score`` then holds the sigmoid's bias too. ``weights``
    (B,H,R,K), before dropout: made from ``normalized``; both are 0 where nothing is kept.
    """

    out: Tensor
    lse: Tensor | None
    score: Tensor
    kept: Tensor
    normalized: Tensor
    weights: Tensor


def attend(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    env: Environment,
    seed: int,
    dtype: torch.dtype,
    rounded_to: torch.dtype | None = None,
    degree: int | None = 1,
) -> Result:
    """Attention of the rows of ``env.grid``: q (B,H,R,D), k (B,Hkv,K,D), v (B,Hkv,K,Dv), in ``dtype``.

    ``rounded_to`` is the baseline's dtype: scores, weights and result are rounded to it; ``degree`` is too.
    """
    grid = env.grid
    k, v = (_per_query_head(t.to(dtype), grid) for t in (k, v))
    scale = evaluate(ir.scale, env, dtype)
    score = rounded(q.to(dtype) @ k.transpose(-1, -2) * scale, rounded_to)
    env = replace(env, score=score, rounded_to=rounded_to)
    score = rounded(evaluate(ir.final_score, env, dtype), rounded_to).expand(grid.shape)
    with torch.no_grad():
        mask = evaluate(ir.mask, env, dtype).expand(grid.shape)
        keeps = mask & (score != -_INF)

    if not ir.is_softmax:
        return _each_by_itself(ir, score, keeps, v, env, seed, dtype, rounded_to)
    logits = torch.where(mask, score, -_INF)
    if ir.sink is not None:
        sink = evaluate(ir.sink, env, dtype).expand(*grid.shape[:3], 1)
        logits = torch.cat([logits, sink], -1)
    keep, factor = _dropout(ir, env, seed)
    if rounded_to is not None and ir.weight is None:
        out, lse = _KeepsOutAndLse.apply(logits, v, keep, factor, rounded_to)  # type: ignore[no-untyped-call]
        return Result(out, lse, score, keeps, *[score.new_empty(0)] * 2)  # nobody asks it for its weights
    probabilities, lse = _softmax(logits, dtype if rounded_to is None else rounded_to)
    normalized = probabilities[..., : grid.k_len].to(dtype)
    weights = rounded(_reweighted(ir, normalized, keeps, env, dtype), rounded_to)
    out = _dropped(weights, keep, factor) @ v
    if rounded_to is not None:
        out, lse = _RoundedOut.apply(out, lse, rounded_to, degree or 0)  # type: ignore[no-untyped-call]
    return Result(out, lse, score, keeps, normalized, weights)


def _each_by_itself(
    ir: AttentionIR,
    score: Tensor,
    keeps: Tensor,
    v: Tensor,
    env: Environment,
    seed: int,
    dtype: torch.dtype,
    rounded_to: torch.dtype | None,
) -> Result:
    """The sigmoid or the relu of each score: no sum, so no log-sum-exp."""
    if ir.bias is not None:
        score = rounded(score + evaluate(ir.bias, env, dtype), rounded_to)
        keeps = keeps & (score != -_INF)
    normalized = rounded(_each_normalized(ir, score, keeps), rounded_to)
    weights = rounded(_reweighted(ir, normalized, keeps, env, dtype), rounded_to)
    out = rounded(_dropped(weights, *_dropout(ir, env, seed)) @ v, rounded_to)
    return Result(out, None, score, keeps, normalized, weights)


def _each_normalized(ir: AttentionIR, score: Tensor, keeps: Tensor) -> Tensor:
    function = torch.sigmoid if ir.normalize is Normalize.SIGMOID else torch.relu
    # What is masked may be infinite or NaN: another score stands there, and its weight is taken away.
    return torch.where(keeps, function(torch.where(keeps, score, 0.0)), 0.0)


def _reweighted(
    ir: AttentionIR, weights: Tensor, keeps: Tensor, env: Environment, dtype: torch.dtype
) -> Tensor:
    """The weights after the weight clause; what is masked has none, whatever the clause says."""
    if ir.weight is None:
        return weights
    return torch.where(keeps, evaluate(ir.weight, replace(env, weight=weights), dtype), 0.0)


def _dropout(ir: AttentionIR, env: Environment, seed: int) -> tuple[Tensor | None, float]:
    """Which weights are kept (None: all), and what they are multiplied by."""
    grid = env.grid
    if ir.dropout is None or (p := drop_probability(ir.dropout, env)) == 0:
        return None, 1.0
    rows, columns = grid.word("q").view(-1), grid.word("k").view(-1)
    return kept(p, seed, rows, columns, grid.batch, grid.heads), kept_weight(p)


def _softmax(logits: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """The probabilities, taken in ``dtype``, and the log-sum-exp: 0 and -inf in a row of nothing but -inf."""
    # Such a row has no softmax: give it another row's, then take the result away.
    some = (logits != -_INF).any(-1, keepdim=True)
    logits = torch.where(some, logits, 0.0)
    lse = torch.where(some[..., 0], torch.logsumexp(logits, -1), -_INF)
    return torch.where(some, torch.softmax(logits.to(dtype), -1), 0.0), lse


def _dropped(weights: Tensor, keep: Tensor | None, factor: float) -> Tensor:
    return weights if keep is None else torch.where(keep, weights * factor, 0.0)


class _KeepsOutAndLse(torch.autograd.Function):
    """The baseline's softmax, dropout and weights @ V, whose backward reads delta off the rounded out.

    logits (B,H,R,K), or (B,H,R,K+1) with the sink's last; v (B,H,K,Dv); keep (B,H,R,K) or None.
    Weights, dO V' and dS are rounded to ``own``, as torch's autograd rounds them; sums are float32.
    """

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, v: Tensor, keep: Tensor | None, factor: float, own: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        probabilities, lse = _softmax(logits, own)
        weights = _dropped(probabilities[..., : v.shape[2]], keep, factor).to(v.dtype)
        out = rounded(weights @ v, own)
        ctx.save_for_backward(probabilities, weights, v, out)
        ctx.own = own
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
        probabilities, weights, v, out = ctx.saved_tensors
        dp = rounded(dout @ v.mT, ctx.own)
        delta = (dout * out).sum(-1) - dlse
        beside = probabilities.shape[-1] - dp.shape[-1]  # the sink's column has a probability, but no value
        # The weights as rounded in out, so that no other rounding than out's own stands against delta.
        gained = torch.nn.functional.pad(weights * dp, (0, beside))
        ds = torch.where(probabilities != 0, gained - probabilities.to(v.dtype) * delta[..., None], 0.0)
        return rounded(ds, ctx.own), weights.mT @ dout, None, None, None


class _RoundedOut(torch.autograd.Function):
    """The baseline's rounding of ``out``, after which delta = degree * rowsum(dO * O) comes of what is left.

    d_lse stands beside -delta in dS = P * (dP - delta + d_lse), so what the rounding moves delta by is one of
    its terms. Degree 0: delta is summed up key by key, and no rounding of ``out`` reaches it.
    """

    @staticmethod
    def forward(ctx: Any, out: Tensor, lse: Tensor, own: torch.dtype, degree: int) -> tuple[Tensor, Tensor]:
        own_out = rounded(out, own)
        ctx.save_for_backward(out - own_out)
        ctx.degree = degree
        return own_out, lse.clone()

    @staticmethod
    def backward(ctx: Any, dout: Tensor, dlse: Tensor) -> tuple[Tensor | None, ...]:
        (taken,) = ctx.saved_tensors
        return dout, dlse + ctx.degree * (dout * taken).sum(-1), None, None


def _per_query_head(tensor: Tensor, grid: Grid) -> Tensor:
    """(B,Hkv,K,D) -> (B,H,K,D): query head h reads key head h // (heads // kv_heads)."""
    if grid.heads == grid.kv_heads:
        return tensor
    return tensor.index_select(1, grid.word("h_kv").view(-1))


def drop_probability(dropout: Expr, env: Environment) -> float:
    """The dropout clause's value, computed in float64 from float32 params, checked to lie in [0, 1]."""
    p = float(evaluate(dropout, env, torch.float64).item())
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout is a probability between 0 and 1, got {p}")
    return p


def kept_weight(p: float) -> float:
    """What a kept weight is multiplied by: 1 / (1 - p), and 0 where everything is dropped."""
    return 1.0 / (1.0 - p) if p < 1.0 else 0.0


def contributions(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    dout: Tensor,
    dlse: Tensor,
    *,
    inputs: Mapping[str, Tensor],
    params: Mapping[str, Scalar],
    seed: int,
) -> dict[str, Tensor]:
    """For each ``grad`` input, the sum of the absolute contributions to each element of its gradient.

    What the numerics criterion calls the size of what was summed, the sums inside dP and delta among it:
    each score contributes p (|dO| |V|' + rowsum|dO O| + |dlse|) |dscore/dx|. Heads first; float64 throughout.
    """
    q, k, v = (t.detach().double() for t in (q, k, v))
    env = bind(ir, q, k, v, inputs, params)
    widened = {n: t.detach().double() if t.is_floating_point() else t for n, t in env.inputs.items()}
    learned = {i.name for i in ir.inputs if i.grad}
    loads = {n for clause in ir.clauses for n in leaves(clause, op=Op.LOAD) if n.value in learned}
    products = {n for n in leaves(ir.final_score, op=Op.DOT) if learned & {str(a.value) for a in n.args}}
    in_sink = set(leaves(ir.sink, op=Op.LOAD)) if ir.sink is not None else set()
    *rows, columns = env.grid.shape
    nudge = {
        node: torch.zeros(*rows, 1 if node in in_sink else columns, dtype=torch.float64, device=q.device)
        for node in (*loads, *products)
    }
    for zeros in nudge.values():
        zeros.requires_grad_()
    env = replace(env, inputs=widened, nudge=nudge)
    result = attend(ir, q, k, v, env, seed, torch.float64)
    sizes = {name: torch.zeros_like(widened[name]) for name in learned}
    differentiated = [
        (values, size.detach())
        for values, size in _largest_derivatives(ir, env, result, v, dout.double(), dlse.double())
        if values.requires_grad
    ]
    if not differentiated:
        return sizes  # no learned input, or only in the mask, through which no gradient flows
    values, weights = zip(*differentiated, strict=True)
    nodes = list(nudge)
    each = torch.autograd.grad(values, [nudge[n] for n in nodes], weights, allow_unused=True)
    for node, parts in zip(nodes, each, strict=True):
        if parts is not None and node in products:
            _add_through_product(sizes, node, parts.abs().nan_to_num(0.0), env)
        if parts is None or node in products or widened[str(node.value)].numel() == 0:
            continue
        table = torch.zeros_like(widened[str(node.value)], requires_grad=True)
        indices = [evaluate(i, env, torch.float64) for i in node.args]
        read = gather(table, indices).expand(parts.shape)
        sizes[str(node.value)] += torch.autograd.grad(read, table, parts.abs().nan_to_num(0.0))[0]
    return sizes


def _add_through_product(sizes: dict[str, Tensor], product: Expr, parts: Tensor, env: Environment) -> None:
    """Add what each score contributes to the vectors of one product: its part times the other vector."""
    rows = []
    for vector in product.args:
        indices = [evaluate(i, env, torch.float64) for i in vector.args]
        rows.append((str(vector.value), env.inputs[str(vector.value)].abs(), indices))
    for own, other in (rows, rows[::-1]):
        if own[0] not in sizes or own[1].numel() == 0:
            continue
        table = torch.zeros_like(own[1], requires_grad=True)
        read = torch.einsum("bhqkr,bhqkr->bhqk", env.rows(own[0], table, own[2]), env.rows(*other))
        sizes[own[0]] += torch.autograd.grad(read.expand(parts.shape), table, parts)[0]


def _largest_derivatives(
    ir: AttentionIR, env: Environment, result: Result, v: Tensor, dout: Tensor, dlse: Tensor
) -> Iterator[tuple[Tensor, Tensor]]:
    """The final score, weights and sink, each with what the derivative by it can be if nothing cancels."""
    weight = 1.0 if ir.dropout is None else kept_weight(drop_probability(ir.dropout, env))
    through = weight * dout.abs() @ _per_query_head(v, env.grid).abs().mT
    if ir.weight is not None:  # what its own inputs get: the weights it was given are constants here
        own = _reweighted(ir, result.normalized.detach(), result.kept, env, torch.float64)
        yield own, through
    slope = slopes(ir, env, result)
    if result.lse is None:
        yield result.score, slope * through
        return
    lse = result.lse[..., None]
    weights = torch.where(result.kept, torch.exp(result.score - lse), 0.0)
    if ir.weight is None:
        delta = (dout * result.out).abs().sum(-1, keepdim=True) + dlse.abs()[..., None]
        yield result.score, weights * (through + delta)
    else:
        delta = (slope * through).sum(-1, keepdim=True) + dlse.abs()[..., None]
        yield result.score, slope * through + weights * delta
    if ir.sink is not None:
        sink = evaluate(ir.sink, env, torch.float64).expand(lse.shape)
        yield sink, torch.where(sink == -_INF, 0.0, torch.exp(sink - lse)) * delta


def slopes(ir: AttentionIR, env: Environment, result: Result) -> Tensor:
    """How much a weight may move with its score (B,H,R,K), float64: |dW/ds|, a softmax's sum held fixed."""
    with torch.enable_grad():
        source = (result.normalized if ir.is_softmax else result.score).detach().double().requires_grad_()
        normalized = source if ir.is_softmax else _each_normalized(ir, source, result.kept)
        weights = _reweighted(ir, normalized, result.kept, env, torch.float64)
        slope = torch.zeros_like(source)
        if weights.requires_grad:
            slope = torch.autograd.grad(weights.sum(), source)[0].abs().nan_to_num(0.0, 0.0, 0.0)
    return slope * result.normalized.detach() if ir.is_softmax else slope
