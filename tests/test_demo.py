"""The demo's parts: the text, the model, and the curves; and, slowly, the whole."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

import attngen

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "demo"))

from curves import largest_deviation, plot, running_means  # noqa: E402
from members import Member, together  # noqa: E402
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


def train_member(member: Member) -> list[float]:
    return train(replace(TINY, steps=10), TEXT, [causal], seed=1, device="cpu", member=member)


def test_two_processes_train_as_one_does() -> None:
    with together(2, train_member) as first:
        losses = train_member(first)
    assert losses == pytest.approx(train_member(Member()), rel=1e-5)


def fail(member: Member) -> None:
    sys.exit(1)


def test_a_process_that_ends_early_ends_the_run() -> None:
    with pytest.raises(RuntimeError, match="ended early"), together(2, fail) as first:
        train_member(first)


def test_the_quickened_interpreter_runs_the_same_kernels_to_the_same_bits(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from interpreter import quickened
    from triton.runtime import interpreter

    launches: list[str] = []
    launch = interpreter.GridExecutor.__call__

    def counted(self: interpreter.GridExecutor, *args: object, **keywords: object) -> None:
        launches.append(self.fn.__name__)
        launch(self, *args, **keywords)

    monkeypatch.setattr(interpreter.GridExecutor, "__call__", counted)
    local = attngen.load("gemma2_local", window=8)
    size = Size(2, 2, 1, 16, length=24, batch=1, steps=3, learning_rate=1e-2)

    def run() -> tuple[list[float], list[str]]:
        launches.clear()
        losses = train(size, TEXT, [partial(local, cap=50.0)], seed=1, device="cpu")
        return losses, list(launches)

    before = interpreter._patch_lang, interpreter.interpreter_builder.options
    plain = run()
    with quickened():
        quick = run()
    assert quick == plain
    forward, backward = ["forward_kernel"], ["delta_kernel", "dkdv_kernel", "dq_kernel"]
    assert quick[1] == (2 * forward + 2 * backward) * 3
    assert (interpreter._patch_lang, interpreter.interpreter_builder.options) == before
    assert run() == plain


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


def run_demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'demo'}", "TRITON_INTERPRET": "1"},
        check=False,
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            "run.assert_matches_reference = wrong; run.train_twice = lambda _: True",
            "output or gradients are not",
        ),
        ("run.check = lambda *_: True; run.train = unlike", "the loss with the kernels is not"),
    ],
)
def test_the_demo_fails_where_a_kernel_is_wrong(tmp_path: Path, change: str, message: str) -> None:
    script = f"""if True:
        import sys, run
        def wrong(variant, *_, **__): raise AssertionError(variant.name + " is wrong")
        losses = iter((3.0, 3.01))
        def unlike(size, *_, **__): return [next(losses)] * size.steps
        run.PROCESSES = 1
        {change}
        sys.exit(run.main())"""
    run = run_demo(tmp_path, "-c", script)
    assert run.returncode == 1, run.stdout + run.stderr
    assert "FAILED" in run.stdout and message in run.stdout
    assert "agree with the reference" not in run.stdout


@pytest.mark.slow
def test_the_demo_runs_and_its_curves_agree(tmp_path: Path) -> None:
    run = run_demo(tmp_path, str(ROOT / "demo" / "run.py"))
    assert run.returncode == 0, run.stdout + run.stderr
    assert "both kernels agree with the reference" in run.stdout
    assert (tmp_path / "demo-output" / "alibi.py").exists()
