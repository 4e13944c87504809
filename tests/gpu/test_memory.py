"""What kernels write: every element of the outputs, from the inputs alone, wherever they lie in memory."""

from __future__ import annotations

import gc

import pytest
import torch
from gpu_calls import keywords, run, tensors

import attngen
from attngen.testing import assert_matches_reference

NAMES = ("full", "alibi", "gemma2_local", "prefix_lm", "packed_documents", "dropped")


def poison(megabytes: int = 512) -> None:
    """Fill what the caching allocator hands out next with NaN: in one piece and in small ones."""
    torch.cuda.empty_cache()
    large = torch.full((megabytes * 2**18,), float("nan"), device="cuda")
    small = [torch.full((2**n,), float("nan"), device="cuda") for n in range(6, 23) for _ in range(8)]
    torch.cuda.synchronize()
    del large, small


@pytest.mark.parametrize("lengths", [(100, 100), (1, 70), (65, 33)], ids=str)
@pytest.mark.parametrize("name", NAMES)
def test_no_result_holds_what_was_in_memory_before(name: str, lengths: tuple[int, int]) -> None:
    variant = attngen.load(name)
    x = tensors(q_len=lengths[0], k_len=lengths[1], head_dim=80)
    named = keywords(variant, x)
    seed = named.pop("seed", None)
    poison()
    probe = torch.empty(2**20, device="cuda")
    assert probe.isnan().all(), "the allocator's memory is not poisoned"
    del probe
    assert_matches_reference(variant, x.q, x.k, x.v, dout=x.d_out, seed=seed, **named)


@pytest.mark.parametrize("deterministic", [True, False])
@pytest.mark.parametrize("name", NAMES)
def test_the_same_call_gives_the_same_bits(name: str, deterministic: bool) -> None:
    """All but dq where the sums of that may come in any order."""
    variant = attngen.load(name)
    x = tensors(q_len=700, k_len=900)
    first = run(variant, x, deterministic=deterministic)
    for _ in range(10):
        again = run(variant, x, deterministic=deterministic)
        assert all(torch.equal(again[n], first[n]) for n in first if deterministic or n != "dq")


@pytest.mark.parametrize("name", NAMES)
def test_memory_grows_linearly(name: str) -> None:
    variant = attngen.load(name)

    def peak(length: int) -> int:
        gc.collect()  # what an earlier call left must not be freed in this one
        x = tensors(batch=1, heads=8, kv_heads=8, q_len=length)
        named = keywords(variant, x)
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        out = variant(x.q, x.k, x.v, **named)
        torch.autograd.grad(out, (x.q, x.k, x.v), x.d_out)
        return torch.cuda.max_memory_allocated() - before

    peak(256)
    assert peak(8192) < 2.2 * peak(4096)


def test_more_than_65535_heads_of_a_batch_are_all_computed() -> None:
    variant = attngen.load("causal")
    x = tensors(batch=70_000, heads=1, kv_heads=1, q_len=5, head_dim=16)
    got = run(variant, x)
    some = [0, 1, 65_534, 65_535, 65_536, 69_999]
    want = variant.reference(x.q[some].detach(), x.k[some].detach(), x.v[some].detach())
    assert isinstance(want, torch.Tensor)
    torch.testing.assert_close(got["out"][some].double(), want, atol=2e-2, rtol=2e-2)
    assert not any(got[n].isnan().any() for n in got)


def test_tensors_of_more_than_two_billion_elements_are_addressed() -> None:
    batch, heads, length, dim = 2, 64, 2**17 + 64, 128  # 2.15e9 elements in each
    need = 2 * batch * heads * length * dim * (8 + 1)
    free, _ = torch.cuda.mem_get_info()
    if free < need * 1.1:
        pytest.skip(f"needs {need / 2**30:.0f} GiB of free memory, {free / 2**30:.0f} are")
    variant = attngen.load("sliding_window", window=64)  # linear work
    q = torch.empty(batch, heads, length, dim, device="cuda", dtype=torch.bfloat16).normal_()
    k, v, d_out = (torch.empty_like(q).normal_() for _ in range(3))
    assert q.numel() > 2**31
    leaves = [x.requires_grad_() for x in (q, k, v)]
    out = variant(*leaves)
    grads = torch.autograd.grad(out, leaves, d_out)

    # The last rows of the last head see only keys near them: a slice is a problem of its own.
    last = [x.detach()[-1:, -1:, -256:] for x in (q, k, v)]
    part = [x.clone().requires_grad_() for x in last]
    want = variant.reference(*part)
    assert isinstance(want, torch.Tensor)
    d_part = torch.autograd.grad(want, part, d_out[-1:, -1:, -256:].double())
    # The window of its first 64 rows reaches outside of it, and so do the gradients that come from them.
    for got, expected in zip((out, *grads), (want, *d_part), strict=True):
        shown = got.detach()[-1:, -1:, -128:].double()
        torch.testing.assert_close(shown, expected[:, :, -128:].double(), atol=5e-2, rtol=5e-2)
