"""Calls as people make them: any length, any strides, gradients of the log-sum-exp, two variants at once."""

from __future__ import annotations

import pytest
import torch
from gpu_calls import Tensors, alike, keywords, relative, run, tensors

import attngen
from attngen.testing import assert_matches_reference
from attngen.testing.tensor import Recipe

LENGTHS = [(0, 0), (0, 5), (5, 0), (1, 1), (1, 129), (129, 1), (63, 65), (128, 128), (200, 333), (333, 200)]


@pytest.mark.parametrize("lengths", LENGTHS, ids=str)
@pytest.mark.parametrize("name", ["causal", "gemma2_local", "packed_documents"])
def test_any_lengths_match_the_reference(name: str, lengths: tuple[int, int]) -> None:
    variant = attngen.load(name)
    x = tensors(q_len=lengths[0], k_len=lengths[1])
    assert_matches_reference(variant, x.q, x.k, x.v, dout=x.d_out, **keywords(variant, x))


def test_a_batch_of_nothing_gives_nothing() -> None:
    got = run(attngen.load("causal"), tensors(batch=0))
    assert got["out"].shape == (0, 4, 100, 64)
    assert got["dk"].shape == (0, 2, 100, 64)


@pytest.mark.parametrize("kind", ["transposed", "sliced", "expanded", "offset"])
def test_strides_change_no_result(kind: str) -> None:
    variant = attngen.load("alibi")
    plain = tensors(batch=1 if kind == "expanded" else 2, heads=4, kv_heads=4, q_len=130)

    def laid_out(t: torch.Tensor) -> torch.Tensor:
        t = t.detach()
        if kind == "transposed":
            return t.transpose(1, 2).contiguous().transpose(1, 2)
        if kind == "sliced":
            wide = torch.full((*t.shape[:-1], 3 * t.shape[-1]), float("nan"), dtype=t.dtype, device="cuda")
            return wide[..., 64:128].copy_(t)
        if kind == "offset":
            flat = torch.empty(t.numel() + 1, dtype=t.dtype, device="cuda")
            return flat[1:].view(t.shape).copy_(t)
        return t.expand(3, -1, -1, -1)

    want = run(variant, plain)
    laid = [laid_out(t) for t in (plain.q, plain.k, plain.v, plain.d_out)]
    got = run(variant, Tensors(*(t.requires_grad_() for t in laid[:3]), laid[3]))
    for name in want:
        expected = want[name].expand_as(got[name])
        assert relative(got[name], expected) < 1e-2, name


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("dims", [(24, 16), (64, 16), (128, 32), (256, 16), (16, 64)], ids=str)
def test_a_v_dim_of_its_own_is_right_off_every_alignment(dims: tuple[int, int], dtype: torch.dtype) -> None:
    """Triton 3.6 once read past the end of V's tile in shared memory here."""
    head_dim, v_dim = dims
    shapes = ((1, 2, 255, head_dim), (1, 1, 255, head_dim), (1, 1, 255, v_dim), (1, 2, 255, v_dim))
    name = str(dtype).removeprefix("torch.")
    q, k, v, d_out = (
        Recipe(shape, name, "offset", seed=seed).build("cuda") for seed, shape in enumerate(shapes)
    )
    assert_matches_reference(attngen.load("full"), q, k, v, dout=d_out)


def test_the_gradient_of_the_log_sum_exp_flows() -> None:
    variant = attngen.load("causal")
    x = tensors(q_len=150)
    _, lse = variant(x.q, x.k, x.v, return_lse=True)
    d_lse = torch.randn_like(lse)
    dq, dk, dv = torch.autograd.grad(lse, (x.q, x.k, x.v), d_lse, materialize_grads=True)
    leaves = [t.detach().double().requires_grad_() for t in (x.q, x.k, x.v)]
    _, exact = variant.reference(*leaves, return_lse=True)
    want_q, want_k = torch.autograd.grad(exact, leaves[:2], d_lse.double())
    assert relative(dq, want_q) < 1e-2
    assert relative(dk, want_k) < 1e-2
    assert (dv == 0).all()


def test_two_windows_at_once_give_each_its_own_result() -> None:
    x = tensors(q_len=200)
    narrow, wide = (attngen.load("sliding_window", window=n) for n in (16, 150))
    for variant in (narrow, wide, narrow, wide):
        want = variant.reference(x.q.detach(), x.k.detach(), x.v.detach())
        assert isinstance(want, torch.Tensor)
        assert relative(run(variant, x)["out"], want) < 1e-2
    assert relative(run(narrow, x)["out"], run(wide, x)["out"]) > 0.1


def test_a_fresh_seed_is_drawn_from_torchs_generator() -> None:
    variant, x = attngen.load("dropped"), tensors()
    torch.manual_seed(3)
    first, second = variant(x.q, x.k, x.v), variant(x.q, x.k, x.v)
    torch.manual_seed(3)
    again = variant(x.q, x.k, x.v)
    assert isinstance(first, torch.Tensor) and isinstance(second, torch.Tensor)
    assert not torch.equal(first, second)
    assert isinstance(again, torch.Tensor) and torch.equal(first, again)


@pytest.mark.parametrize("q_len", [300, 3000])
def test_no_dropout_is_causal_attention_to_the_bit(q_len: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With the same tiles: their order is that of the sums."""
    dropped, causal = attngen.load("dropped"), attngen.load("causal")
    for name in ("TILES", "HOPPER_TILES", "FILLED"):
        monkeypatch.setattr(causal.module, name, getattr(dropped.module, name))
    monkeypatch.setattr(causal.module, "CALLS", {})
    x = tensors(q_len=q_len)
    found, want = run(dropped, x, p=0.0, deterministic=True), run(causal, x, deterministic=True)
    assert all(torch.equal(found[name], want[name]) for name in want)


def test_a_call_runs_on_the_stream_that_is_current() -> None:
    variant, x = attngen.load("causal"), tensors(q_len=1000)
    want = run(variant, x)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        got = run(variant, x)
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    assert torch.equal(got["out"], want["out"]) and alike(got.values(), want.values())


def test_a_call_runs_on_the_device_of_its_tensors() -> None:
    if torch.cuda.device_count() < 2:
        pytest.skip("needs two CUDA devices")
    variant, x = attngen.load("alibi"), tensors(device="cuda:1")
    with torch.cuda.device(0):
        got = run(variant, x)
        assert torch.cuda.current_device() == 0
    assert got["dq"].device == torch.device("cuda:1")
    want = variant.reference(x.q.detach(), x.k.detach(), x.v.detach(), **keywords(variant, x))
    assert isinstance(want, torch.Tensor)
    assert relative(got["out"], want) < 1e-2


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.complex64], ids=str)
def test_other_dtypes_are_refused_by_name(dtype: torch.dtype) -> None:
    x = torch.zeros(1, 1, 4, 16, device="cuda", dtype=dtype)
    with pytest.raises(TypeError, match="expected float16, bfloat16 or float32"):
        attngen.load("causal")(x, x, x)
