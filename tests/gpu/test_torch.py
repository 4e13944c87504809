"""The kernels as operators of torch: torch.compile, opcheck, checkpointing, inference."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gpu_calls import keywords, relative, run, tensors
from torch import Tensor
from torch.utils.checkpoint import checkpoint

import attngen
from attngen.runtime.loader import load_module


@pytest.mark.parametrize("name", ["causal", "alibi", "softcap", "dropped"])
def test_torch_compile_makes_one_graph(name: str) -> None:
    variant, x = attngen.load(name), tensors(q_len=130)
    named = keywords(variant, x)
    call = getattr(load_module(variant.path), variant.name)

    def scaled(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        return call(q * 2.0, k, v, **named) + 1.0

    torch.compiler.reset()
    compiled = torch.compile(scaled, fullgraph=True)
    results = []
    for f in (scaled, compiled):
        out = f(x.q, x.k, x.v)
        results.append((out, *torch.autograd.grad(out, (x.q, x.k, x.v), x.d_out)))
    for want, got in zip(*results, strict=True):
        assert relative(got, want) < 1e-3


def test_a_variant_itself_compiles_in_one_graph() -> None:
    variant, x = attngen.load("causal"), tensors(q_len=64)
    torch.compiler.reset()
    got = torch.compile(lambda q, k, v: variant(q, k, v), fullgraph=True)(x.q, x.k, x.v)
    want = variant(x.q, x.k, x.v)
    assert isinstance(want, Tensor)
    assert torch.equal(got, want)


@pytest.mark.parametrize("bshd", [False, True])
@pytest.mark.parametrize("name", ["alibi", "dropped"])
def test_opcheck_finds_no_fault(name: str, bshd: bool) -> None:
    variant, x = attngen.load(name), tensors(q_len=70)
    module: Any = load_module(variant.path)
    named = keywords(variant, x)
    if "seed" in named:
        named["seed"] = torch.tensor([named["seed"]], device="cuda")
    defaults = {p.name: p.default for p in variant.ir.params}
    inputs = [named[i.name] for i in variant.ir.inputs]
    seed = [named["seed"]] if "seed" in named else []
    params = [named.get(name, default) for name, default in defaults.items()]
    flag = [True] if hasattr(module, "takes_hopper") else []  # deterministic
    q, k, v = (x.q, x.k, x.v)
    if bshd:
        q, k, v = (t.transpose(1, 2).contiguous().transpose(1, 2) for t in (q, k, v))
    arguments = (q, k, v, *inputs, *seed, *params, *flag)
    torch.library.opcheck(module.forward_operator, arguments)


def test_checkpointing_replays_the_same_dropout() -> None:
    variant, x = attngen.load("dropped"), tensors(q_len=128)

    def call(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        out = variant(q, k, v)
        assert isinstance(out, Tensor)
        return out

    results = []
    for replayed in (False, True):
        torch.manual_seed(11)
        out = checkpoint(call, x.q, x.k, x.v, use_reentrant=False) if replayed else call(x.q, x.k, x.v)
        results.append((out, *torch.autograd.grad(out, (x.q, x.k, x.v), x.d_out)))
    for want, got in zip(*results, strict=True):
        assert torch.equal(got, want)


@pytest.mark.parametrize("mode", [torch.no_grad, torch.inference_mode])
def test_inference_gives_the_same_bits(mode: Any) -> None:
    variant, x = attngen.load("causal"), tensors()
    with mode():
        out = variant(x.q, x.k, x.v)
    assert isinstance(out, Tensor)
    assert not out.requires_grad
    assert torch.equal(out, run(variant, x)["out"])


@pytest.mark.parametrize("wanted", ["q", "k", "v", "kv"])
def test_a_subset_of_the_gradients_is_the_same(wanted: str) -> None:
    variant, x = attngen.load("causal"), tensors()
    full = run(variant, x, deterministic=True)
    leaves = {n: getattr(x, n).detach().requires_grad_(n in wanted) for n in ("q", "k", "v")}
    out = variant(**leaves, deterministic=True)
    assert isinstance(out, Tensor)
    grads = torch.autograd.grad(out, [leaves[n] for n in wanted], x.d_out)
    for name, grad in zip(wanted, grads, strict=True):
        assert torch.equal(grad, full[f"d{name}"])
