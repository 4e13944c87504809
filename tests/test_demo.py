"""The demo's parts: the text, the model, and the curves; and, slowly, the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from curves import largest_deviation, plot, running_means  # noqa: E402
from model import Size, train  # noqa: E402

TEXT = (ROOT / "demo" / "text.txt").read_text(encoding="ascii")
TINY = Size(2, 4, 2, 8, length=32, batch=4, steps=40, learning_rate=1e-2)


def causal(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)


def test_the_text_is_prose_of_about_100_kb_without_a_licence() -> None:
    assert 90_000 < len(TEXT) < 110_000
    assert "Alice was beginning to get very tired" in TEXT[:200]
    assert "Gutenberg" not in TEXT


def test_training_learns_and_the_seed_fixes_every_step() -> None:
    first = train(TINY, TEXT, [causal], seed=1, device="cpu")
    assert first[0] > 4.0  # about the logarithm of 67 characters
    assert sum(first[-5:]) / 5 < first[0] - 0.8
    assert train(TINY, TEXT, [causal], seed=1, device="cpu") == first
    assert train(TINY, TEXT, [causal], seed=2, device="cpu") != first


def halved(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return causal(q, k, v) * 0.5


def unmasked(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v, enable_gqa=True)


def dense(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    k, v = k.repeat_interleave(2, 1), v.repeat_interleave(2, 1)
    future = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool).triu(1)
    scores = (q @ k.mT * q.shape[3] ** -0.5).masked_fill(future, float("-inf"))
    return scores.softmax(-1) @ v


def test_the_comparison_of_curves_tells_a_wrong_attention_from_another_rounding() -> None:
    """At the demo's criterion for float32: without this, the comparison of the two runs would say nothing."""
    right = train(TINY, TEXT, [causal], seed=1, device="cpu")
    assert largest_deviation(train(TINY, TEXT, [dense], seed=1, device="cpu"), right) < 0.001
    for wrong in (halved, unmasked):
        assert largest_deviation(train(TINY, TEXT, [wrong], seed=1, device="cpu"), right) > 0.001


def test_a_layer_never_looks_ahead() -> None:
    from model import CharGPT

    model = CharGPT(TINY, 67, [causal])
    tokens = torch.randint(67, (1, 32))
    changed = tokens.clone()
    changed[0, 20:] = 0
    assert torch.equal(model(tokens)[0, :20], model(changed)[0, :20])


def test_running_means_and_deviation() -> None:
    assert running_means([1.0, 3.0, 5.0], over=2) == [2.0, 4.0]
    assert running_means([1.0, 3.0], over=20) == [2.0]
    assert largest_deviation([1.0, 1.0], [1.0, 1.0]) == 0.0
    assert largest_deviation([2.2] * 30, [2.0] * 30) == pytest.approx(0.1)


def test_the_plot_shows_both_curves() -> None:
    same = plot([3.0, 2.0, 1.0], [3.0, 2.0, 1.0], width=3, height=3)
    assert [line.split("|")[1] for line in same.splitlines()[:3]] == ["*  ", " * ", "  *"]
    apart = plot([3.0, 3.0], [1.0, 1.0], width=2, height=3)
    assert [line.split("|")[1] for line in apart.splitlines()[:3]] == ["kk", "  ", "rr"]


@pytest.mark.slow
def test_the_demo_runs_and_its_curves_agree(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, str(ROOT / "demo" / "run.py")],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT), "TRITON_INTERPRET": "1"},
        check=False,
    )
    assert run.returncode == 0, run.stdout + run.stderr
    assert "both kernels agree with the reference" in run.stdout
    assert (tmp_path / "demo-output" / "alibi.py").exists()
