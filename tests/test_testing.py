"""The test kit passes what is right, and fails each planted mutant: the test of the tests."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import ir_samples as samples
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from ir_samples import CAUSAL, DIST, B, H, K
from torch import Tensor

import attngen
from attngen import blockwise, reference
from attngen.dropout_bits import kept
from attngen.eager import evaluate
from attngen.ir.build import build
from attngen.ir.nodes import SCORE, TRUE, AttentionIR, Op, const, load, make, word
from attngen.ir.types import Type
from attngen.source import Source
from attngen.syntax.parse import parse
from attngen.testing import assert_matches_reference, shapes, specs, tensors
from attngen.testing.cases import cases
from attngen.testing.criteria import amplifies, compare, compare_lse
from attngen.testing.reach import small_tiles
from attngen.testing.run import run_property_tests
from attngen.testing.tensor import STRIDES, Recipe, recipe_of

pytestmark = pytest.mark.usefixtures("one_thread")

Attention = Callable[..., tuple[Tensor, Tensor]]
NAMES = ("q", "k", "v")
INF = float("inf")
pytest_plugins = ("pytester",)


@dataclass
class StandIn:
    """A variant without a compiler: ``run`` is called as ``blockwise.attention`` is."""

    ir: AttentionIR
    run: Attention = blockwise.attention
    runs_ir: AttentionIR | None = None  # what it computes, where that is not what it promises
    calls: int = field(default=0)

    @property
    def name(self) -> str:
        return self.ir.name

    def __call__(self, q: Tensor, k: Tensor, v: Tensor, **given: Any) -> Any:
        self.calls += 1
        inputs = {i.name: given.pop(i.name) for i in self.ir.inputs}
        params = {p.name: given.pop(p.name) for p in self.ir.params if p.name in given}
        assert given.pop("return_lse") is True
        return self.run(self.runs_ir or self.ir, q, k, v, inputs=inputs, params=params, **given)


def arguments(ir: AttentionIR, dtype: torch.dtype = torch.float16) -> dict[str, Any]:
    """A call that no mutant may pass: 37 queries, 45 keys, two query heads a key head."""
    torch.manual_seed(3)
    batch, heads, kv_heads, sq, sk, d = 2, 4, 2, 37, 45, 16
    given: dict[str, Any] = {
        "slopes": torch.rand(heads) * 0.3,
        "prefix": torch.tensor([20, 40], dtype=torch.int32),
        "doc": torch.tensor([[0] * 17 + [1] * 28, [3] * 30 + [5] * 15], dtype=torch.int32),
        "sinks": torch.randn(heads),
        "table": torch.randn(heads, 32),
        "bias": torch.randn(batch, heads, sq, sk),
        "cap": 2.0,
        "p": 0.3,
    }
    wanted = {i.name for i in ir.inputs} | {p.name for p in ir.params}
    q = torch.randn(batch, heads, sq, d).to(dtype)
    k, v = (torch.randn(batch, kv_heads, sk, d).to(dtype) for _ in range(2))
    return {"q": q, "k": k, "v": v, "seed": 11, **{n: x for n, x in given.items() if n in wanted}}


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
@pytest.mark.parametrize("sample", samples.ALL, ids=lambda f: f.__name__)
def test_a_correct_kernel_passes(sample: Callable[[], AttentionIR], dtype: torch.dtype) -> None:
    ir = sample()
    verdicts = assert_matches_reference(StandIn(ir), **arguments(ir, dtype))
    assert {"out", "lse", "dq", "dk", "dv"} <= {v.name for v in verdicts}


class AsTensorCoresRound(torch.autograd.Function):
    """Attention as tiled kernels round it: float32 sums, 16-bit operands of every product.

    The backward has only out and lse, and so the output's rounding in delta, as FlashAttention's has.
    ``mask`` and ``keep`` (what dropout keeps) are (B,H,Sq,Sk) or broadcast to it; ``factor`` is what the
    kept weights are multiplied by: float32 sums of them, as in FlashAttention-2, not 16-bit operands.
    """

    @staticmethod
    def forward(
        ctx: Any, q: Tensor, k: Tensor, v: Tensor, mask: Tensor, keep: Tensor, factor: float
    ) -> tuple[Tensor, Tensor]:
        kv_heads = k.shape[1]
        k, v = (t.repeat_interleave(q.shape[1] // kv_heads, 1) for t in (k, v))
        s = torch.where(mask, q.float() @ k.float().mT * q.shape[-1] ** -0.5, -INF)
        top = s.amax(-1, keepdim=True).clamp(min=-1e30)
        p = (s - top).exp()
        total = p.sum(-1, keepdim=True)
        out = ((p * keep).to(q.dtype).float() @ v.float() * (factor / total.clamp(min=1e-30))).to(q.dtype)
        lse = torch.where(total > 0, total.log() + top, -INF)[..., 0]
        ctx.save_for_backward(q, k, v, out, lse, mask, keep)
        ctx.factor, ctx.kv_heads = factor, kv_heads
        return out, lse

    @staticmethod
    def backward(ctx: Any, dout: Tensor, dlse: Tensor) -> Any:
        q, k, v, out, lse, mask, keep = ctx.saved_tensors
        own, scale = q.dtype, q.shape[-1] ** -0.5
        s = q.float() @ k.float().mT * scale
        p = torch.where(mask & (lse[..., None] != -INF), s - lse[..., None], -INF).exp()
        delta = (dout.float() * out.float()).sum(-1) - dlse
        dp = keep * (dout.float() @ v.float().mT) * ctx.factor
        ds = (p * (dp - delta[..., None])).to(own).float()
        dv = (p * keep).to(own).float().mT @ dout.float() * ctx.factor
        dq, dk = ds @ k.float() * scale, ds.mT @ q.float() * scale
        dk, dv = (t.unflatten(1, (ctx.kv_heads, -1)).sum(2) for t in (dk, dv))
        return dq.to(own), dk.to(own), dv.to(own), None, None, None


def as_tensor_cores_round(
    ir: AttentionIR,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    inputs: dict[str, Tensor],
    params: dict[str, Any],
    layout: str,
    seed: int = 0,
) -> tuple[Tensor, Tensor]:
    """A tiled kernel of a spec that has a mask and dropout, but leaves the score alone."""
    assert not ir.score and ir.sink is None
    if not (q.numel() and k.numel()):
        return blockwise.attention(ir, q, k, v, inputs=inputs, params=params, layout=layout, seed=seed)
    q, k, v = (reference.heads_first(t, layout) for t in (q, k, v))
    env = reference.bind(ir, q, k, v, inputs, params)
    mask, keep, factor = evaluate(ir.mask, env, torch.float32), torch.ones(()), 1.0
    if ir.dropout is not None:
        p = reference.drop_probability(ir.dropout, env)
        rows, columns = torch.arange(q.shape[2]), torch.arange(k.shape[2])
        keep, factor = kept(p, seed, rows, columns, *q.shape[:2]).float(), reference.kept_weight(p)
    out, lse = AsTensorCoresRound.apply(q, k, v, mask, keep, factor)  # type: ignore[no-untyped-call]
    return reference.heads_first(out, layout), lse


def test_a_kernel_that_rounds_as_tensor_cores_do_passes() -> None:
    report = run_property_tests(
        StandIn(samples.full(), as_tensor_cores_round),
        examples=60,
        dtypes=("float16", "bfloat16"),
        max_length=70,
    )
    assert report.passed, report.failure
    assert report.worst["float16", "dq"].ratio > 0.1  # the criterion is near enough to see the rounding


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("sample", [samples.dropped, samples.documents], ids=lambda f: f.__name__)
def test_it_passes_where_one_to_three_keys_leave_delta_nothing_to_average(
    sample: Callable[[], AttentionIR], dtype: str
) -> None:
    report = run_property_tests(
        StandIn(sample(), as_tensor_cores_round), examples=50, dtypes=[dtype], max_length=3
    )
    assert report.passed, report.failure


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("d", [16, 64, 80, 128, 256])
def test_it_passes_with_one_key_and_dropout(d: int, dtype: str) -> None:
    """Exact by the true sum of P * dP, which is 0 there; not by the rounded output."""
    q, k, v, dout = (Recipe((1, 1, 1, d), dtype).build() for _ in range(4))
    variant = StandIn(samples.dropped(), as_tensor_cores_round)
    verdicts = assert_matches_reference(variant, q, k, v, dout=dout, seed=0, p=0.1)
    assert next(v for v in verdicts if v.name == "dq").error > 0


def test_it_passes_where_one_score_among_capped_ones_is_on_a_steep_slope() -> None:
    """That score's rounding decides the largest error, and the baseline's may be near nothing by luck."""
    text = "variant v\nscore = softcap(score * 40.0, 0.5)\nmask = 0 <= dist < 5\n"
    variant = attngen.compile(text)
    for seed in range(0, 90, 3):
        q, k, v = (Recipe((1, 1, n, 16), seed=seed + at).build() for at, n in enumerate((11, 9, 9)))
        assert_matches_reference(variant, q, k, v)


def test_scores_on_a_step_excuse_nothing() -> None:
    """Where products are whole numbers some lie on it: their last bits do not move them over."""
    variant = attngen.compile("variant v\nscore = score * score if score > 0.0 else 3.0\n")
    random = torch.Generator().manual_seed(1)
    q, k, v = (torch.randint(0, 2, (1, 1, n, 16), generator=random).float() * 2 - 1 for n in (33, 29, 29))
    assert_matches_reference(variant, q, k, v)

    def wrong(*arguments: Any, **named: Any) -> tuple[Tensor, Tensor]:
        out, lse = blockwise.attention(*arguments, **named)
        return 1.001 * out, lse

    with pytest.raises(AssertionError, match="the error of out"):
        assert_matches_reference(StandIn(variant.ir, wrong), q, k, v)


@pytest.mark.parametrize(
    "line", ["weight = weight ** 2", "score = tanh(q - k) ** 2", "score = softcap(score, 2.0)", "score = 1.0"]
)
def test_the_rounding_of_scores_is_judged_whatever_reads_them(line: str) -> None:
    variant = attngen.compile(f"variant v\n{line}\nmask = dist >= 0\n")
    q, k, v = (Recipe((1, 2, n, 16), seed=n).build() for n in (9, 7, 7))  # the first queries see nothing
    assert_matches_reference(variant, q, k, v)


# --- planted mutants -------------------------------------------------------------------------------------


def off(ir: AttentionIR, **parts: Any) -> tuple[AttentionIR, AttentionIR, Attention]:
    """A kernel of another spec than it promises."""
    return ir, replace(ir, **parts), blockwise.attention


def around(sample: AttentionIR, wrong: Callable[..., tuple[Tensor, Tensor]]) -> Any:
    """A kernel that does something wrong beside its maths."""
    return sample, sample, wrong


def with_gradient(change: Callable[[Tensor], Tensor]) -> Callable[[Tensor], Tensor]:
    """The identity, whose gradient is changed on its way back."""

    def identity(x: Tensor) -> Tensor:
        passed = x.view_as(x)
        if passed.requires_grad:
            passed.register_hook(change)
        return passed

    return identity


def grads(which: str, change: Callable[[Tensor], Tensor]) -> Attention:
    """A kernel with one wrong gradient: of q, k, v or an input."""

    def run(ir: AttentionIR, *qkv: Tensor, inputs: dict[str, Tensor], **more: Any) -> tuple[Tensor, Tensor]:
        wrong = with_gradient(change)
        q, k, v = (wrong(t) if n == which else t for n, t in zip(NAMES, qkv, strict=True))
        inputs = {n: wrong(t) if n == which else t for n, t in inputs.items()}
        return blockwise.attention(ir, q, k, v, inputs=inputs, **more)

    return run


def results(change: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]) -> Attention:
    def run(*args: Any, **more: Any) -> tuple[Tensor, Tensor]:
        return change(*blockwise.attention(*args, **more))

    return run


def wrong_heads(ir: AttentionIR, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """Head h reads key head h % kv_heads."""
    group = q.shape[1] // k.shape[1]
    return blockwise.attention(ir, q, k.repeat(1, group, 1, 1), v.repeat(1, group, 1, 1), **more)


def dropped_edge(ir: AttentionIR, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    """The keys after the last whole tile of 16 are forgotten."""
    n = k.shape[2] // 16 * 16
    return blockwise.attention(ir, q, k[:, :, :n], v[:, :, :n], **more)


def halves(rescale: bool, both_sums: bool) -> Attention:
    """Online softmax over two tiles of keys, with its rescaling or its running sum forgotten."""

    def run(ir: AttentionIR, q: Tensor, k: Tensor, v: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
        group = q.shape[1] // k.shape[1]
        wide_q, *wide = (t.float() for t in (q, k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)))
        first, second = (wide_q @ t.mT * q.shape[-1] ** -0.5 for t in wide[0].split([16, k.shape[2] - 16], 2))
        m1 = first.amax(-1, keepdim=True)
        m = torch.maximum(m1, second.amax(-1, keepdim=True))
        shrink = (m1 - m).exp() if rescale else torch.ones_like(m)
        p1, p2 = (first - m1).exp(), (second - m).exp()
        v1, v2 = wide[1].split([16, k.shape[2] - 16], 2)
        total = p2.sum(-1, keepdim=True) + (shrink * p1.sum(-1, keepdim=True) if both_sums else 0)
        out = (shrink * (p1 @ v1) + p2 @ v2) / total
        return out.to(q.dtype), (total.log() + m)[..., 0]

    return run


def dropout_of(change: Callable[[int], int]) -> Attention:
    def run(*args: Any, seed: int, **more: Any) -> tuple[Tensor, Tensor]:
        return blockwise.attention(*args, seed=change(seed), **more)

    return run


def first_of_group(gradient: Tensor) -> Tensor:
    gradient = gradient.clone()
    gradient[:, 1:] = 0
    return gradient


def poke(at: tuple[int, ...], value: float) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]:
    def change(out: Tensor, lse: Tensor) -> tuple[Tensor, Tensor]:
        mark = torch.zeros(out.shape, dtype=torch.bool)
        mark[at] = True
        return torch.where(mark, torch.tensor(value, dtype=out.dtype), out), lse

    return change


def mutants() -> dict[str, tuple[AttentionIR, AttentionIR, Attention]]:
    full, causal, alibi, cap = samples.full(), samples.causal(), samples.alibi(), samples.softcap()
    window, prefix, docs, dropped = (
        f() for f in (samples.window, samples.prefix, samples.documents, samples.dropped)
    )
    sink, learned, dense = samples.sink(), samples.learned_bias(), samples.dense_bias()
    slope = load("slopes", Type.FLOAT, (H,))
    far = samples.real(make(Op.ABS, DIST))
    doc = [load("doc", Type.INT, (B, i)) for i in (word("q"), K)]
    bias_t = load("bias", Type.FLOAT, (B, H, word("pos"), K))
    short = make(Op.CLAMP, make(Op.ADD, DIST, const(15)), const(0), const(30))
    return {
        "causal keeps one future key": off(causal, mask=make(Op.LE, const(-1), DIST)),
        "causal drops the diagonal": off(causal, mask=make(Op.LT, const(0), DIST)),
        "causal aligned at the top left": off(causal, mask=make(Op.LE, K, word("q"))),
        "causal forgotten": off(causal, mask=TRUE),
        "window of n + 1": off(window, mask=samples.window(17).mask),
        "window of n - 1": off(window, mask=samples.window(15).mask),
        "window without causal": off(window, mask=make(Op.LT, DIST, const(16))),
        "prefix inclusive": off(
            prefix, mask=make(Op.OR, CAUSAL, make(Op.LE, K, load("prefix", Type.INT, (B,))))
        ),
        "prefix of the first batch": off(
            prefix, mask=make(Op.OR, CAUSAL, make(Op.LT, K, load("prefix", Type.INT, (const(0),))))
        ),
        "document of the row, not the position": off(docs, mask=make(Op.AND, CAUSAL, make(Op.EQ, *doc))),
        "bias of the wrong sign": off(alibi, score=(make(Op.ADD, SCORE, make(Op.MUL, slope, far)),)),
        "slope of the key head": off(
            alibi,
            score=(make(Op.SUB, SCORE, make(Op.MUL, load("slopes", Type.FLOAT, (word("h_kv"),)), far)),),
        ),
        "softcap forgotten": off(cap, score=()),
        "softcap without its derivative": around(cap, grads("q", lambda g: g * 1.2)),
        "bias row shifted": off(dense, score=(make(Op.ADD, SCORE, bias_t),)),
        "table's last bucket merged": off(
            learned, score=(make(Op.ADD, SCORE, load("table", Type.FLOAT, (H, short))),)
        ),
        "scale off by a percent": off(full, scale=make(Op.MUL, full.scale, const(1.01))),
        "sink forgotten": off(sink, sink=None),
        "sink of the first head": off(sink, sink=load("sinks", Type.FLOAT, (const(0),))),
        "head map modulo": around(full, wrong_heads),
        "edge tile dropped": around(full, dropped_edge),
        "no rescale": around(full, halves(rescale=False, both_sums=True)),
        "running sum restarted": around(full, halves(rescale=True, both_sums=False)),
        "dropout scaled twice": around(dropped, results(lambda out, lse: (out / 0.7, lse))),
        "dropout unscaled": around(dropped, results(lambda out, lse: (out * 0.7, lse))),
        "another seed": around(dropped, dropout_of(lambda seed: seed + 1)),
        "seed's high word lost": around(dropped, dropout_of(lambda seed: seed & 7)),
        "sign of dq": around(full, grads("q", torch.neg)),
        "sign of dk": around(full, grads("k", torch.neg)),
        "dv of one head of the group": around(full, grads("v", first_of_group)),
        "dk scaled twice": around(full, grads("k", lambda g: g * 0.25)),
        "table's gradient forgotten": around(learned, grads("table", torch.zeros_like)),
        "table's gradient counted twice": around(learned, grads("table", lambda g: g * 2)),
        "sink's sign": around(sink, grads("sinks", torch.neg)),
        "lse not differentiated": around(full, results(lambda out, lse: (out, lse.detach()))),
        "lse in base 2": around(full, results(lambda out, lse: (out, lse * 1.4427))),
        "lse without the maximum": around(full, results(lambda out, lse: (out, lse - 0.1))),
        "one NaN": around(full, results(poke((0, 0, 3, 4), float("nan")))),
        "one stale element": around(full, results(poke((1, 3, 36, 15), 0.0))),
        "one infinity": around(full, results(poke((0, 0, 0, 0), float("inf")))),
        "out of another dtype": around(full, results(lambda out, lse: (out.double(), lse))),
        "out of another shape": around(full, results(lambda out, lse: (out.mT, lse))),
        "out rounded to eight bits": around(
            full, results(lambda out, lse: (out.to(torch.float8_e4m3fn).to(out.dtype), lse))
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("name", list(mutants()))
def test_each_planted_mutant_fails(name: str, dtype: torch.dtype) -> None:
    promised, computed, run = mutants()[name]
    with pytest.raises(AssertionError, match="does not match its reference"):
        assert_matches_reference(StandIn(promised, run, computed), **arguments(promised, dtype))


def test_the_mutants_scaffolding_is_itself_correct() -> None:
    """What the mutants fail by is their mutation: the online softmax without one passes."""
    ir = samples.full()
    assert_matches_reference(StandIn(ir, halves(rescale=True, both_sums=True)), **arguments(ir))
    assert_matches_reference(StandIn(ir, grads("q", lambda g: g)), **arguments(ir))


# --- reports ---------------------------------------------------------------------------------------------


def test_a_failure_says_what_where_and_how_to_see_it_again() -> None:
    ir = samples.alibi()
    q, k, v = (Recipe((1, 2, 20, 16), "float16", "transposed", seed=i).build() for i in range(3))
    variant = StandIn(ir, results(poke((0, 1, 7, 5), 99.0)))
    with pytest.raises(AssertionError) as caught:
        assert_matches_reference(variant, q, k, v, slopes=torch.tensor([0.5, 0.25]))
    text = str(caught.value)
    assert "out[0, 1, 7, 5] is 99.0" in text
    assert "strides (640, 16, 32, 1)" in text and "torch.float16" in text

    script = text.split("To reproduce:\n\n")[1]
    with pytest.raises(AssertionError) as again:
        exec(script.replace("import attngen\n", "").replace("...  # alibi", "given"), {"given": variant})
    assert str(again.value) == text


def test_a_reference_that_is_nan_is_told_and_is_no_error_of_the_kernel() -> None:
    ir = samples.causal()
    q, k, v = (Recipe((1, 1, 6, 16), "float32", "contiguous", seed=i).build() for i in range(3))
    v[0, 0, 5, 3] = float("nan")
    with pytest.raises(
        AssertionError, match=r"the reference itself is NaN.*: 6 elements of out, 96 elements of dq"
    ):
        assert_matches_reference(StandIn(ir, results(lambda out, lse: (out, lse))), q, k, v)


@dataclass
class Doubled:
    """A built variant whose results are twice what they should be."""

    built: Any

    def __getattr__(self, name: str) -> Any:
        return getattr(self.built, name)

    def __call__(self, *args: Tensor, **more: Any) -> Any:
        out, lse = self.built(*args, **more)
        return out * 2, lse


def test_a_failures_script_builds_with_the_same_consts_and_runs_the_same_tiles() -> None:
    spec = "variant w\nconst n: int = 4096\nmask = sliding_window(n)"
    report = run_property_tests(Doubled(attngen.compile(spec, n=5)), examples=3, max_length=20)  # type: ignore[arg-type]
    assert isinstance(report.error, AssertionError)
    script = str(report.failure).split("To reproduce:\n\n")[1]
    assert "with small_tiles(variant):\n    assert_matches_reference" in script
    namespace: dict[str, Any] = {}
    exec(script, namespace)  # as it stands; the variant itself is right, and so passes
    assert dict(namespace["variant"].ir.consts) == {"n": 5}


def test_tensors_of_no_recipe_are_reproduced_from_a_file(tmp_path: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    ir = samples.full()
    variant = StandIn(ir, results(poke((0, 0, 0, 0), float("nan"))))
    with pytest.raises(AssertionError, match=r"torch\.load"):
        assert_matches_reference(variant, **arguments(ir))
    assert len(list(tmp_path.iterdir())) >= 3


# --- the criterion ---------------------------------------------------------------------------------------


def test_nan_never_passes_and_infinity_only_where_the_true_value_overflows() -> None:
    ref = torch.tensor([1.0, 2.0, 1e6], dtype=torch.float64)
    good = torch.tensor([1.0, 2.0, float("inf")], dtype=torch.float16)
    assert compare("x", good, ref, good, torch.float16, 1.0, 0.0, False).passed
    for at, bad in ((0, float("nan")), (2, float("nan")), (1, float("inf")), (2, -float("inf"))):
        x = good.clone()
        x[at] = bad
        verdict = compare("x", x, ref, good, torch.float16, 1.0, 0.0, False)
        assert not verdict.passed and verdict.worst == (at,)
    poisoned_base = torch.full_like(good, float("nan"))
    assert not compare("x", good + 0.1, ref, poisoned_base, torch.float16, 1.0, 0.0, False).passed


def test_the_bound_is_the_baselines_error_twice_and_three_times_where_amplified_or_few() -> None:
    for error, amplified, n, passes in (
        (0.019, False, 16, True),
        (0.021, False, 16, False),
        (0.029, True, 16, True),
        (0.031, True, 16, False),
        (0.029, False, 15, True),
        (0.031, False, 15, False),
    ):
        ref = torch.zeros(n, dtype=torch.float64)
        base = torch.full((n,), 0.01, dtype=torch.float64)
        x = torch.zeros(n, dtype=torch.float64)
        x[3] = error  # so that the mean stays small
        assert compare("x", x, ref, base, torch.float16, 0.0, 0.0, amplified).passed is passes


def test_short_calls_reach_the_forward_of_long_ones_and_nothing_is_left_behind() -> None:
    variant = attngen.load("causal")
    module: Any = variant.module
    usual, tiles = dict(module.FILLED), dict(module.TILES)
    with small_tiles(variant):
        assert set(module.FILLED.values()) == {-1}
        module.CALLS["seen in here"] = None
    assert (usual, tiles, {}) == (module.FILLED, module.TILES, module.CALLS)


def test_small_tiles_hold_the_widest_heads_beside_products_of_rows() -> None:
    variant = attngen.load("low_rank_bias")
    assert run_property_tests(variant, examples=1, head_dims=(256,), max_length=20).passed


def test_the_mean_is_held_tighter_for_large_sixteen_bit_tensors() -> None:
    for n, dtype, passes in (
        (4096, torch.float16, False),
        (4095, torch.float16, True),
        (4096, torch.float32, True),
    ):
        ref, base = torch.zeros(n, dtype=torch.float64), torch.full((n,), 0.01, dtype=torch.float64)
        assert compare("x", base * 1.7, ref, base, dtype, 0.0, 0.0, False).passed is passes


def test_a_bound_is_never_narrowed_by_the_side_its_rounding_falls_on() -> None:
    """(x + 0.3) - 0.3 lies under x for some x, over it for others."""
    for value in (-0.003133466914534351, 0.003133466914534351, 0.7, -1.7122449789108183):
        ref = torch.tensor([value], dtype=torch.float64)
        exact = ref.float()
        assert compare("x", exact, ref, exact, torch.float32, 0.0, 0.0, False).bound >= 0.0


def test_float32_weights_may_be_off_by_what_their_scores_can_hold() -> None:
    """One key alone has weight 1; exp(s - lse) of a float32 score of 100 has it to about 100 * 2^-24."""
    ref = torch.full((64,), 3.0, dtype=torch.float64)
    base = ref.float()
    for error, passes in ((2.0**-24 * 100, True), (2.0**-19 * 100, False)):
        x = ref.clone()
        x[3] *= 1 + error
        assert compare("x", x, ref, base, torch.float32, 3.0, 100.0, False).passed is passes


def test_the_size_of_a_sinks_gradient_counts_the_terms_of_delta_that_cancel() -> None:
    source = Source("variant v\ninput s: float32[heads] grad\nsink = s[h]\n", "v.attn")
    ir = build(parse(source), source)
    q = k = torch.ones(1, 1, 1, 4)
    v = torch.tensor([1.0, -1.0, 1.0, -1.0]).reshape(1, 1, 1, 4)
    given: Any = {"inputs": {"s": torch.zeros(1)}, "params": {}, "seed": 0}
    (size,) = reference.contributions(ir, q, k, v, torch.ones_like(v), torch.zeros(1, 1, 1), **given)["s"]
    kept = torch.tensor(2.0).exp() / (1 + torch.tensor(2.0).exp())  # of q . k / sqrt(4)
    torch.testing.assert_close(size.item(), (kept * (1 - kept) * 4).item(), rtol=1e-6, atol=0)


def test_lse_must_meet_minus_infinity_exactly() -> None:
    inf = float("inf")
    ref = torch.tensor([1.0, -inf], dtype=torch.float64)
    assert compare_lse("lse", torch.tensor([1.002, -inf]), ref, 1.0, False).passed
    for bad in ([1.004, -inf], [1.0, -1e30], [-inf, -inf], [1.0, float("nan")], [1.0, inf]):
        assert not compare_lse("lse", torch.tensor(bad), ref, 1.0, False).passed


def test_what_bends_the_score_amplifies_and_what_shifts_or_scales_it_does_not() -> None:
    assert amplifies(samples.softcap())
    assert amplifies(samples.variant("v", score=(make(Op.MUL, SCORE, SCORE),)))
    assert amplifies(samples.variant("v", score=(make(Op.DIV, const(1.0), SCORE),)))
    for ir in (samples.full(), samples.alibi(), samples.learned_bias()):
        assert not amplifies(ir)
    assert not amplifies(samples.variant("v", score=(make(Op.MUL, const(2.0), SCORE),)))
    assert not amplifies(samples.variant("v", score=(make(Op.DIV, SCORE, const(2.0)),)))


# --- strategies ------------------------------------------------------------------------------------------

fast = settings(deadline=None, max_examples=50, suppress_health_check=list(HealthCheck), database=None)


@pytest.mark.parametrize("strides", STRIDES)
@pytest.mark.parametrize("shape", [(2, 3, 5, 8), (1, 1, 1, 16), (0, 2, 3, 8), (2, 2, 0, 8)])
def test_a_recipe_gives_its_shape_and_the_same_tensor_again(strides: str, shape: tuple[int, ...]) -> None:
    recipe = Recipe(shape, "bfloat16", strides)
    tensor = recipe.build()
    assert tensor.shape == shape and tensor.dtype is torch.bfloat16 and not tensor.isnan().any()
    assert torch.equal(tensor, recipe.build()) and recipe_of(tensor) == recipe
    assert tensor.requires_grad_().is_leaf


def test_memory_layouts_differ() -> None:
    built = {s: Recipe((2, 3, 5, 8), strides=s).build() for s in STRIDES}
    assert len({(t.stride(), t.storage_offset()) for t in built.values()}) == len(STRIDES)


@fast
@given(shapes(max_length=80), st.data())
def test_shapes_and_tensors_are_within_bounds(shape: Any, data: st.DataObject) -> None:
    assert shape.q_len <= 80 and shape.k_len <= 80 and shape.batch * shape.heads <= 6
    assert shape.heads % shape.kv_heads == 0
    assert data.draw(tensors(shape.q)).shape == shape.q


@fast
@given(shapes(head_dims=[64]))
def test_head_dims_can_be_restricted(shape: Any) -> None:
    assert shape.head_dim == shape.v_dim == 64


@fast
@given(cases(samples.documents()))
def test_inputs_are_drawn_as_declared(case: Any) -> None:
    doc = case.tensors()["doc"]
    assert doc.dtype is torch.int32 and (doc.diff(dim=-1) >= 0).all()
    assert doc.shape[0] in (1, case.shape.batch) and doc.shape[1] in (1, case.shape.k_len)


def built(text: str) -> AttentionIR:
    source = Source(text)
    return build(parse(source), source)


@settings(parent=fast, max_examples=60)
@given(specs())
def test_every_drawn_spec_is_well_typed_and_runs(text: str) -> None:
    ir = built(text)
    case = cases(ir, max_length=20, head_dims=[16])
    q = torch.randn(1, 2, 9, 16)
    k = torch.randn(1, 1, 11, 16)
    assert case is not None
    inputs = {i.name: made_up(i.dtype, i.dims) for i in ir.inputs}
    out = reference.attention(ir, q, k, k, inputs=inputs, seed=1)
    assert isinstance(out, Tensor) and out.isfinite().all(), text


def made_up(dtype: str, dims: tuple[int | str, ...]) -> Tensor:
    sizes = {"batch": 1, "heads": 2, "kv_heads": 1, "q_len": 9, "k_len": 11}
    shape = [d if isinstance(d, int) else sizes.get(d, 5) for d in dims]
    return (torch.randn(shape) * 2).to(getattr(torch, dtype))


def test_drawn_specs_vary() -> None:
    seen = set()

    @settings(parent=fast, max_examples=100, derandomize=True)
    @given(specs())
    def collect(text: str) -> None:
        seen.update(
            word
            for word in ("mask", "sink", "dropout", "scale", "let", "def", "score")
            if f"\n{word} " in text
        )

    collect()
    assert seen == {"mask", "sink", "dropout", "scale", "let", "def", "score"}


# --- property runs ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", samples.ALL, ids=lambda f: f.__name__)
def test_property_runs_pass_a_correct_kernel(sample: Callable[[], AttentionIR]) -> None:
    done: list[int] = []
    report = run_property_tests(StandIn(sample()), examples=16, progress=done.append, max_length=40)
    assert report.passed, report.failure
    assert report.examples == 16 == done[-1]
    assert {dtype for dtype, _ in report.worst} == {"float16", "float32"}


def test_property_runs_shrink_a_failure_and_report_it() -> None:
    variant = StandIn(samples.causal(), runs_ir=samples.window(16))
    report = run_property_tests(variant, examples=60)
    assert not report.passed and report.failure is not None
    assert "To reproduce" in report.failure
    # The smallest call that shows it: one plane, and few more keys than the window.
    assert "(1, 1, " in report.failure and "FAILED" in str(report)


def test_property_runs_report_what_a_kernel_raises() -> None:
    def broken(*args: Any, **more: Any) -> Any:
        raise RuntimeError("illegal memory access")

    report = run_property_tests(StandIn(samples.full(), broken), examples=5)
    assert not report.passed and report.failure == "RuntimeError: illegal memory access"


def test_a_learned_input_that_only_the_mask_reads_has_no_gradient() -> None:
    table = load("table", Type.FLOAT, (H, K))
    ir = replace(samples.learned_bias(), score=(), mask=make(Op.LT, table, const(0.4)))
    verdicts = assert_matches_reference(StandIn(ir), **arguments(ir))
    assert next(v for v in verdicts if v.name == "dtable").error == 0.0


def test_the_plugin_tests_each_spec_file(pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch) -> None:
    """One item a file; a failure shows the report and how to reproduce it, not a traceback."""
    wrong = StandIn(samples.causal(), runs_ir=samples.full())
    variants = {"right": StandIn(samples.causal()), "wrong": wrong}
    for name in variants:
        (pytester.path / f"{name}.attn").write_text(f"variant {name}\nmask = causal\n")
    monkeypatch.setattr(
        "attngen.testing.builds.build_variant",
        lambda source, **_: variants["right" if "right" in source.text else "wrong"],
    )
    plugin = ("-p", "no:attngen", "-p", "attngen.testing.plugin")  # installed or not, it is loaded once
    result = pytester.runpytest_inprocess(*plugin, "--attngen-examples=20")
    result.assert_outcomes(passed=1, failed=1)
    result.stdout.fnmatch_lines(["*causal does not match its reference*", "*To reproduce:*"])
    result.stdout.no_fnmatch_line("*plugin.py*Error*")
    assert variants["right"].calls == 20


def test_the_same_seed_draws_the_same_calls() -> None:
    drawn: list[list[tuple[int, ...]]] = [[], []]
    for calls in drawn:

        def record(ir: AttentionIR, q: Tensor, *more: Tensor, _calls: Any = calls, **named: Any) -> Any:
            _calls.append((*q.shape, *q.stride()))
            return blockwise.attention(ir, q, *more, **named)

        run_property_tests(StandIn(samples.full(), record), examples=8, seed=5, max_length=20)
    assert drawn[0] == drawn[1]


def test_the_plugin_loads_neither_torch_nor_hypothesis() -> None:
    """Everyone who has attngen installed pays for it at every start of pytest."""
    code = "import sys, attngen.testing.plugin; print('torch' in sys.modules, 'hypothesis' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]
