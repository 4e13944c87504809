"""Where numbers get hard: peaked scores, overflow of float16, long uniform rows, races that come and go."""

from __future__ import annotations

import pytest
import torch
from gpu_calls import keywords, relative, run, tensors

import attngen
from attngen.testing import assert_matches_reference

VARIANTS = ("full", "causal", "alibi", "softcap", "gpt_oss", "relative_table")
SIXTEEN = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)


@SIXTEEN
@pytest.mark.parametrize("length", [1, 2, 5, 17, 128])
@pytest.mark.parametrize("name", VARIANTS)
def test_peaked_scores_meet_the_criterion(name: str, length: int, dtype: torch.dtype) -> None:
    """q five times, k and v three times as large: most rows attend to one key alone."""
    variant = attngen.load(name)
    x = tensors(q_len=length, dtype=dtype)
    named = keywords(variant, x)
    q, k, v = (tensor.detach() * times for tensor, times in ((x.q, 5), (x.k, 3), (x.v, 3)))
    assert_matches_reference(variant, q, k, v, dout=x.d_out, **named)


@pytest.mark.parametrize("length", [1, 64, 300])
@pytest.mark.parametrize("name", ["full", "causal"])
def test_dot_products_past_float16_do_not_overflow(name: str, length: int) -> None:
    """Each q . k is 128 * 256 * 256 = 2^23; float16 ends at 65,504."""
    variant = attngen.load(name)
    x = tensors(q_len=length, head_dim=128, dtype=torch.float16)
    q, k = torch.full_like(x.q, 256.0), torch.full_like(x.k, 256.0)
    out, lse = variant(q, k, x.v, return_lse=True)
    assert out.isfinite().all() and lse.isfinite().all()
    torch.testing.assert_close(
        lse.max().item(), 2.0**23 / 128**0.5 + torch.tensor(length).log().item(), rtol=1e-6, atol=0
    )
    want = variant.reference(q, k, x.v)
    assert isinstance(want, torch.Tensor)
    torch.testing.assert_close(out.double(), want, rtol=2e-3, atol=2e-3)


@SIXTEEN
def test_the_mean_of_49999_values_is_their_mean(dtype: torch.dtype) -> None:
    """Scores of 0: each weight is 1/49,999, and out the mean of v; dV is the mean of dO over the rows."""
    length = 49_999
    x = tensors(batch=1, heads=2, kv_heads=1, q_len=length, dtype=dtype)
    v = (x.v.detach() + 1.0).requires_grad_()
    variant = attngen.load("full")
    out, lse = variant(torch.zeros_like(x.q), x.k, v, return_lse=True)
    mean = v.detach().double().mean(2, keepdim=True)
    eps = torch.finfo(dtype).eps
    torch.testing.assert_close(out.double(), mean.expand_as(out), rtol=eps, atol=0)
    torch.testing.assert_close(lse, torch.full_like(lse, length).log(), rtol=1e-6, atol=0)
    d_out = torch.ones_like(out)
    (d_v,) = torch.autograd.grad(out, v, d_out)
    # Each key gets 2 heads x 49,999 rows x 1/49,999.
    torch.testing.assert_close(d_v.double(), torch.full_like(d_v, 2.0).double(), rtol=2 * eps, atol=0)


@pytest.mark.parametrize("name", ["causal", "relative_table", "dropped"])
def test_250_repeats_give_the_same_bits(name: str) -> None:
    """A batch of 60 keeps every multiprocessor busy, in another order each time."""
    variant = attngen.load(name)
    x = tensors(batch=60, heads=4, kv_heads=2, q_len=239, k_len=251)
    named = keywords(variant, x)
    learned = {i.name: named[i.name].requires_grad_() for i in variant.ir.inputs if i.grad}
    named |= learned
    leaves = [x.q, x.k, x.v, *learned.values()]

    def once() -> list[torch.Tensor]:
        out, lse = variant(x.q, x.k, x.v, return_lse=True, **named)
        grads = torch.autograd.grad(out, leaves, x.d_out)
        return [out.detach(), lse.detach(), *grads]

    first = once()
    differ = torch.zeros((), dtype=torch.int64, device="cuda")
    for _ in range(250):
        for now, then in zip(once(), first, strict=True):
            differ += (now != then).sum()
    assert int(differ) == 0


@pytest.mark.parametrize("name", VARIANTS)
def test_float32_is_right_to_float32(name: str) -> None:
    variant = attngen.load(name)
    x = tensors(q_len=300, dtype=torch.float32)
    got = run(variant, x)
    q, k, v = (t.detach().double().requires_grad_() for t in (x.q, x.k, x.v))
    want = variant.reference(q, k, v, **{n: t for n, t in keywords(variant, x).items() if n != "seed"})
    assert isinstance(want, torch.Tensor)
    grads = torch.autograd.grad(want, (q, k, v), x.d_out.double())
    for name_, exact in zip(("out", "dq", "dk", "dv"), (want, *grads), strict=True):
        assert relative(got[name_], exact) < 2e-6, name_
