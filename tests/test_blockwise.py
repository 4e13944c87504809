"""The CPU path gives what the oracle gives, in memory linear in the sequence length."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable

import ir_samples as samples
import pytest
import torch
from torch import Tensor

from attngen import blockwise, reference
from attngen.ir.nodes import AttentionIR

pytestmark = pytest.mark.usefixtures("one_thread")

BATCH, HEADS, KV_HEADS, SQ, SK = 2, 4, 2, 37, 45


def inputs_of(ir: AttentionIR) -> dict[str, Tensor]:
    given = {
        "slopes": torch.rand(HEADS) * 0.1,
        "prefix": torch.tensor([3, 30], dtype=torch.int32),
        "doc": torch.arange(SK, dtype=torch.int32).div(10, rounding_mode="floor").expand(BATCH, SK),
        "sinks": torch.randn(HEADS),
        "table": torch.randn(HEADS, 32),
        "bias": torch.randn(BATCH, 1, SQ, SK),
    }
    return {i.name: given[i.name] for i in ir.inputs}


@pytest.mark.parametrize("sample", samples.ALL, ids=lambda f: f.__name__)
@pytest.mark.parametrize("rows", [1, 16, 1000])
def test_any_block_size_gives_the_references_result_and_gradients(
    sample: Callable[[], AttentionIR], rows: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "_BLOCK_SCORES", rows * BATCH * HEADS * SK)
    torch.manual_seed(0)
    ir = sample()
    q, k, v = torch.randn(BATCH, HEADS, SQ, 16), *torch.randn(2, BATCH, KV_HEADS, SK, 16)
    inputs = inputs_of(ir)
    results = []
    for run, dtype in ((blockwise.attention, torch.float32), (reference.attention, torch.float64)):
        leaves = [t.to(dtype).requires_grad_() for t in (q, k, v)]
        given = {n: t.to(dtype).requires_grad_() if t.is_floating_point() else t for n, t in inputs.items()}
        more = {"return_lse": True} if run is reference.attention else {}
        out, lse = run(ir, *leaves, inputs=given, seed=5, **more)  # type: ignore[operator]
        leaves += [t for t in given.values() if t.is_floating_point()]
        weights = torch.Generator().manual_seed(2)
        cotangents = [torch.randn(t.shape, generator=weights).to(dtype) for t in (out, lse)]
        results.append([out, lse, *torch.autograd.grad([out, lse], leaves, cotangents)])
    for mine, exact in zip(*results, strict=True):
        assert mine.dtype is torch.float32
        torch.testing.assert_close(mine.double(), exact, rtol=2e-4, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_the_result_has_the_tensors_dtype_and_the_lse_float32(dtype: torch.dtype) -> None:
    q, k, v = (torch.randn(1, 2, 20, 16, dtype=dtype, requires_grad=True) for _ in range(3))
    out, lse = blockwise.attention(samples.causal(), q, k, v)
    assert out.dtype is dtype and lse.dtype is torch.float32
    assert all(g.dtype is dtype for g in torch.autograd.grad(out.sum(), [q, k, v]))


@pytest.mark.parametrize(("sq", "sk", "batch"), [(0, 5, 1), (5, 0, 1), (0, 0, 1), (3, 3, 0)])
def test_nothing_to_do_is_done(sq: int, sk: int, batch: int) -> None:
    q, k, v = (torch.randn(batch, 2, n, 16, requires_grad=True) for n in (sq, sk, sk))
    out, lse = blockwise.attention(samples.causal(), q, k, v)
    assert out.shape == q.shape and not out.any() and (lse == -float("inf")).all()
    assert not any(g.any() for g in torch.autograd.grad(out.sum(), [q, k, v]))


PEAK = """
import resource, sys, torch
import ir_samples as samples
from attngen import blockwise
n = int(sys.argv[1])
blockwise._BLOCK_SCORES = 2**17
def go(n):
    q, k, v = (torch.randn(1, 1, n, 16, requires_grad=True) for _ in range(3))
    out, lse = blockwise.attention(samples.causal(), q, k, v)
    (out.sum() + lse.sum()).backward()
go(256)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
go(n)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024)
"""


def test_memory_is_far_below_one_dense_score_matrix() -> None:
    """Forward and backward at 5k x 5k: one float32 matrix of scores would be 100 MiB, a backward several."""
    n = 5 * 1024
    paths = [str(p) for p in sys.path]
    script = f"import sys; sys.path[:0] = {paths!r}\n{PEAK}"
    done = subprocess.run(
        [sys.executable, "-c", script, str(n)],
        capture_output=True,
        text=True,
        check=True,
        timeout=300,
        # So that freed blocks go back to the system, and the peak is what was live and not what malloc kept.
        env={**os.environ, "MALLOC_MMAP_THRESHOLD_": "65536"},
    )
    assert int(done.stdout) < n * n * 4 / 3
