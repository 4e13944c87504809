"""The oracle against formulas written out by hand, and at the edges that kernels get wrong."""

from __future__ import annotations

import math
from typing import Any

import ir_samples as samples
import pytest
import torch
from ir_samples import CAUSAL, DIST, POS, B, H, K, Q, real, variant
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

import attngen
from attngen import reference
from attngen.eager import Environment, evaluate
from attngen.ir.nodes import SCORE, AttentionIR, Expr, Input, Op, Param, const, load, make, param, size
from attngen.ir.types import Type

pytestmark = pytest.mark.usefixtures("one_thread")

INF = float("inf")


def qkv(
    batch: int = 2, heads: int = 4, kv_heads: int = 2, sq: int = 9, sk: int = 13, d: int = 8, dv: int = 6
) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    shapes = ((batch, heads, sq, d), (batch, kv_heads, sk, d), (batch, kv_heads, sk, dv))
    return [torch.randn(s, generator=generator, dtype=torch.float64, requires_grad=True) for s in shapes]


def run(ir: AttentionIR, *tensors: Tensor, **more: Any) -> tuple[Tensor, Tensor]:
    out = reference.attention(ir, *tensors, return_lse=True, **more)
    assert isinstance(out, tuple)
    return out


def by_hand(q: Tensor, k: Tensor, v: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, 1), v.repeat_interleave(group, 1)
    s = q @ k.mT / math.sqrt(q.shape[-1]) + bias
    return s.softmax(-1) @ v, s.logsumexp(-1)


def distance(sq: int, sk: int) -> Tensor:
    return (torch.arange(sq) + sk - sq)[:, None] - torch.arange(sk)[None]


def check(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor], *leaves: Tensor) -> None:
    generator = torch.Generator().manual_seed(1)
    dout = torch.randn(want[0].shape, generator=generator, dtype=torch.float64)
    dlse = torch.randn(want[1].shape, generator=generator, dtype=torch.float64)
    for a, b in zip(got, want, strict=True):
        torch.testing.assert_close(a, b)
    mine = torch.autograd.grad(got, leaves, [dout, dlse])
    theirs = torch.autograd.grad(want, leaves, [dout, dlse])
    for a, b in zip(mine, theirs, strict=True):
        torch.testing.assert_close(a, b)


def kept_bias(keep: Tensor) -> Tensor:
    return torch.zeros(keep.shape, dtype=torch.float64).masked_fill(~keep, -INF)


def test_full_attention_is_sdpa() -> None:
    q, k, v = qkv()
    got = run(samples.full(), q, k, v)
    torch.testing.assert_close(got[0], scaled_dot_product_attention(q, k, v, enable_gqa=True))
    check(got, by_hand(q, k, v, torch.zeros(())), q, k, v)


def test_causal_aligns_at_the_bottom_right() -> None:
    q, k, v = qkv()
    check(run(samples.causal(), q, k, v), by_hand(q, k, v, kept_bias(distance(9, 13) >= 0)), q, k, v)


def test_alibi_subtracts_each_heads_slope() -> None:
    q, k, v = qkv()
    slopes = torch.tensor([0.5, 0.25, 0.1, 0.0], dtype=torch.float64, requires_grad=True)
    dist = distance(9, 13)
    bias = kept_bias(dist >= 0) - slopes[:, None, None] * dist.abs()
    got = run(samples.alibi(), q, k, v, inputs={"slopes": slopes})
    check(got, by_hand(q, k, v, bias), q, k, v, slopes)


def test_softcap_bends_the_score() -> None:
    q, k, v = qkv(heads=2)
    s = q @ k.mT / math.sqrt(8)
    s = 1.5 * (s / 1.5).tanh()
    want = (s.softmax(-1) @ v, s.logsumexp(-1))
    check(run(samples.softcap(), q, k, v, params={"cap": 1.5}), want, q, k, v)


def test_window_keeps_exactly_n_keys() -> None:
    q, k, v = qkv()
    dist = distance(9, 13)
    want = by_hand(q, k, v, kept_bias((dist >= 0) & (dist < 3)))
    check(run(samples.window(3), q, k, v), want, q, k, v)


def test_prefix_and_documents_read_their_inputs() -> None:
    q, k, v = qkv()
    dist = distance(9, 13)
    lengths = torch.tensor([3, 40], dtype=torch.int32)
    keep = (dist >= 0) | (torch.arange(13) < lengths[:, None, None, None])
    got = run(samples.prefix(), q, k, v, inputs={"prefix": lengths})
    check(got, by_hand(q, k, v, kept_bias(keep)), q, k, v)
    doc = torch.tensor([[0] * 5 + [1] * 8, [2] * 12 + [3]], dtype=torch.int32)
    keep = (dist >= 0) & (doc[:, None, 4:, None] == doc[:, None, None, :])
    got = run(samples.documents(), q, k, v, inputs={"doc": doc})
    check(got, by_hand(q, k, v, kept_bias(keep)), q, k, v)


def test_learned_bias_gets_its_gradient() -> None:
    q, k, v = qkv()
    table = torch.randn(4, 32, dtype=torch.float64, requires_grad=True)
    bias = table[:, (distance(9, 13) + 15).clamp(0, 31)]
    got = run(samples.learned_bias(), q, k, v, inputs={"table": table})
    check(got, by_hand(q, k, v, bias), q, k, v, table)


def test_a_dimension_of_size_one_broadcasts_and_sums_its_gradient() -> None:
    q, k, v = qkv()
    bias = torch.randn(1, 4, 1, 13, dtype=torch.float64, requires_grad=True)
    got = run(samples.dense_bias(), q, k, v, inputs={"bias": bias})
    check(got, by_hand(q, k, v, bias), q, k, v, bias)


def test_sink_joins_the_denominator_only() -> None:
    q, k, v = qkv(heads=2)
    sinks = torch.tensor([0.3, -1.0], dtype=torch.float64, requires_grad=True)
    s = q @ k.mT / math.sqrt(8) + kept_bias(distance(9, 13) >= 0)
    total = s.exp().sum(-1, keepdim=True) + sinks.exp()[:, None, None]
    want = (s.exp() / total @ v, total.log()[..., 0])
    check(run(samples.sink(), q, k, v, inputs={"sinks": sinks}), want, q, k, v, sinks)


def test_dropout_scales_what_it_keeps_and_leaves_the_lse() -> None:
    q, k, v = qkv(heads=2)
    keep = reference.kept(0.25, 77, torch.arange(9), torch.arange(13), 2, 2)
    s = q @ k.mT / math.sqrt(8) + kept_bias(distance(9, 13) >= 0)
    want = ((s.softmax(-1) * keep / 0.75) @ v, s.logsumexp(-1))
    check(run(samples.dropped(), q, k, v, params={"p": 0.25}, seed=77), want, q, k, v)


def test_dropping_nothing_is_no_dropout_and_dropping_all_gives_zero() -> None:
    q, k, v = qkv()
    none = reference.attention(samples.dropped(), q, k, v, params={"p": 0.0}, seed=1)
    assert torch.equal(none, reference.attention(samples.causal(), q, k, v))
    out, lse = run(samples.dropped(), q, k, v, params={"p": 1.0}, seed=1)
    grads = torch.autograd.grad([out, lse], [q, k, v], [torch.ones_like(out), torch.ones_like(lse)])
    assert not out.any() and all(g.isfinite().all() for g in grads)


@pytest.mark.parametrize("p", [-0.1, 1.5, float("nan")])
def test_dropout_outside_zero_to_one_is_refused(p: float) -> None:
    with pytest.raises(ValueError, match="between 0 and 1"):
        reference.attention(samples.dropped(), *qkv(), params={"p": p}, seed=1)


def test_rows_that_see_nothing_give_zero_everywhere() -> None:
    q, k, v = qkv(sq=9, sk=4)  # the first five rows lie before every key
    out, lse = run(samples.causal(), q, k, v)
    assert not out[:, :, :5].any() and (lse[:, :, :5] == -INF).all() and lse[:, :, 5:].isfinite().all()
    grads = torch.autograd.grad([out, lse], [q, k, v], [torch.ones_like(out), torch.ones_like(lse)])
    assert all(g.isfinite().all() for g in grads) and not grads[0][:, :, :5].any()


def test_an_empty_row_with_a_sink_gives_the_sink() -> None:
    q, k, v = qkv(sq=6, sk=2)
    sinks = torch.tensor([1.0, 2.0, 3.0, -INF], dtype=torch.float64, requires_grad=True)
    out, lse = run(samples.sink(), q, k, v, inputs={"sinks": sinks})
    assert not out[:, :, :4].any()
    assert torch.equal(lse[:, :, :4], sinks.detach().view(1, 4, 1).expand(2, 4, 4))
    dlse = torch.zeros_like(lse)
    dlse[:, :, :4] = torch.arange(1.0, 5.0)
    *grads, dsink = torch.autograd.grad([out, lse], [q, k, v, sinks], [torch.zeros_like(out), dlse])
    torch.testing.assert_close(dsink[:3], torch.full((3,), 20.0, dtype=torch.float64))
    assert dsink[3] == 0 and not any(g.any() for g in grads)


@pytest.mark.parametrize("sizes", [{"sq": 0}, {"sk": 0}, {"batch": 0}, {"sq": 0, "sk": 0}])
def test_nothing_to_do_is_done(sizes: dict[str, int]) -> None:
    tensors = qkv(**sizes)
    out, lse = run(samples.causal(), *tensors)
    assert out.shape == (*tensors[0].shape[:3], 6) and not out.any() and (lse == -INF).all()
    grads = torch.autograd.grad([out, lse], tensors, [torch.ones_like(out), torch.ones_like(lse)])
    assert not any(g.any() for g in grads)


def test_a_score_of_minus_infinity_counts_as_masked() -> None:
    q, k, v = qkv()
    bias = torch.randn(2, 4, 9, 13, dtype=torch.float64)
    bias[:, :, :, ::2] = -INF
    bias[0, 0, 3] = -INF
    bias.requires_grad_()
    out, lse = run(samples.dense_bias(), q, k, v, inputs={"bias": bias})
    assert not out[0, 0, 3].any() and lse[0, 0, 3] == -INF
    grads = torch.autograd.grad([out, lse], [q, k, v, bias], [torch.ones_like(out), torch.ones_like(lse)])
    assert all(g.isfinite().all() for g in grads) and not grads[3][:, :, :, ::2].any()


@pytest.mark.parametrize("bad", [INF, -INF, float("nan")])
def test_non_finite_scores_at_masked_positions_change_nothing(bad: float) -> None:
    q, k, v = qkv()
    score = make(Op.MUL, SCORE, load("bias", Type.FLOAT, (B, H, Q, K)))
    ir = variant(
        "v",
        score=(score,),
        mask=CAUSAL,
        inputs=(Input("bias", "float32", ("batch", "heads", "q_len", "k_len")),),
    )
    plain = torch.rand(2, 4, 9, 13, dtype=torch.float64)
    poisoned = plain.masked_fill(distance(9, 13) < 0, bad)
    results = []
    for bias in (plain, poisoned):
        bias.requires_grad_()
        out, lse = run(ir, q, k, v, inputs={"bias": bias})
        ones = [torch.ones_like(out), torch.ones_like(lse)]
        results.append([out, lse, *torch.autograd.grad([out, lse], [q, k, v, bias], ones)])
    for a, b in zip(*results, strict=True):
        assert torch.equal(a, b)


def test_a_division_that_blows_up_under_the_mask_leaves_no_nan() -> None:
    q, k, v = qkv()
    blown = make(Op.DIV, SCORE, make(Op.SQRT, real(DIST)))  # infinite at dist 0, NaN below
    ir = variant("v", score=(blown,), mask=make(Op.LT, const(0), DIST))
    out, lse = run(ir, q, k, v)
    grads = torch.autograd.grad([out, lse], [q, k, v], [torch.ones_like(out), torch.ones_like(lse)])
    assert all(t.isfinite().all() for t in (out, lse, *grads))


def test_a_conditional_takes_only_its_chosen_branch() -> None:
    q, k, v = qkv(heads=2)
    safe = make(Op.WHERE, make(Op.EQ, K, Q), SCORE, make(Op.LOG, make(Op.SUB, real(K), real(K))))
    ir = variant("v", score=(make(Op.WHERE, make(Op.LT, K, const(9)), SCORE, safe),))
    out, lse = run(ir, q, k, v)
    want = by_hand(q, k[:, :, :9], v[:, :, :9], torch.zeros(()))
    check((out, lse), want, q, k, v)


def test_bshd_is_the_same_transposed() -> None:
    q, k, v = qkv()
    swapped = [t.transpose(1, 2) for t in (q, k, v)]
    out, lse = run(samples.causal(), *swapped, layout="bshd")
    want = run(samples.causal(), q, k, v)
    assert torch.equal(out.transpose(1, 2), want[0]) and torch.equal(lse, want[1])
    with pytest.raises(ValueError, match="layout"):
        reference.attention(samples.full(), q, k, v, layout="sbhd")


def test_names_must_match_the_declarations() -> None:
    tensors = qkv()
    with pytest.raises(TypeError, match="missing input 'slopes'"):
        reference.attention(samples.alibi(), *tensors)
    with pytest.raises(TypeError, match="unknown param 'caap'"):
        reference.attention(samples.softcap(), *tensors, params={"caap": 1.0})
    required = variant("v", score=(param("c", Type.FLOAT),), params=(Param("c", Type.FLOAT),))
    with pytest.raises(TypeError, match="missing param 'c'"):
        reference.attention(required, *tensors)


def test_contributions_are_at_least_the_gradient_and_count_cancelling_terms() -> None:
    q, k, v = qkv()
    table = torch.randn(4, 32, dtype=torch.float64, requires_grad=True)
    ir = samples.learned_bias()
    out, lse = run(ir, q, k, v, inputs={"table": table})
    dout, dlse = torch.randn_like(out), torch.randn_like(lse)
    (grad,) = torch.autograd.grad([out, lse], [table], [dout, dlse])
    sizes = reference.contributions(ir, q, k, v, dout, dlse, inputs={"table": table}, params={}, seed=0)
    assert (sizes["table"] >= grad.abs() - 1e-12).all()
    assert sizes["table"].sum() > 1.5 * grad.abs().sum()
    # The table's columns that no distance reaches get nothing.
    assert not sizes["table"][:, :6].any()


def test_the_baseline_errs_as_sixteen_bits_do() -> None:
    q, k, v = (t.detach() for t in qkv(sq=40, sk=40))
    exact = reference.attention(samples.causal(), q, k, v)
    for dtype, low, high in (
        (torch.float16, 1e-5, 5e-3),
        (torch.bfloat16, 1e-4, 5e-2),
        (torch.float32, 0, 1e-5),
    ):
        out, _ = reference.baseline(samples.causal(), q.to(dtype), k.to(dtype), v.to(dtype))
        assert out.dtype is dtype
        assert low <= (out.double() - exact).abs().max() <= high


def baseline_gradients(ir: AttentionIR, dtype: torch.dtype, tensors: list[Tensor], **given: Any) -> Any:
    """The gradients of the baseline in ``dtype``, and of the oracle at the same values."""
    generator = torch.Generator().manual_seed(1)
    narrow = [t.detach().to(dtype) for t in tensors]
    found = []
    for own, attend in ((dtype, reference.baseline), (torch.float64, run)):
        leaves = [t.to(own).requires_grad_() for t in narrow]
        learned = {n: t.detach().clone().requires_grad_() for n, t in given.get("inputs", {}).items()}
        out, lse = attend(ir, *leaves, **{**given, "inputs": learned})
        generator.manual_seed(1)
        dout = torch.randn(out.shape, generator=generator).to(dtype).to(own)
        dlse = torch.randn(lse.shape, generator=generator).to(lse.dtype)
        found.append(torch.autograd.grad([out, lse], [*leaves, *learned.values()], [dout, dlse]))
    return zip(*found, strict=True)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
@pytest.mark.parametrize("sq", [9, 20])  # of 20, the first seven rows lie before every key
def test_the_baselines_gradients_are_the_oracles_but_for_rounding(sq: int, dtype: torch.dtype) -> None:
    near = 2e-5 if dtype is torch.float32 else 2e-2
    tensors = qkv(sq=sq)
    bias = torch.randn(2, 4, sq, 13)
    bias[:, :, :, ::2] = -INF
    bias[0, 0, 3] = -INF
    sinks = torch.tensor([1.0, 0.3, -2.0, -INF])
    calls: list[tuple[AttentionIR, dict[str, Any]]] = [
        (samples.full(), {}),
        (samples.causal(), {}),
        (samples.dropped(), {"seed": 5, "params": {"p": 0.3}}),
        (samples.dropped(), {"seed": 5, "params": {"p": 1.0}}),
        (samples.dense_bias(), {"inputs": {"bias": bias}}),
        (samples.sink(), {"inputs": {"sinks": sinks}}),
        (samples.alibi(), {"inputs": {"slopes": torch.rand(4)}}),
    ]
    for ir, given in calls:
        for base, ref in baseline_gradients(ir, dtype, tensors, **given):
            assert base.isfinite().all()
            largest = float(ref.abs().max()) if ref.numel() else 0.0
            torch.testing.assert_close(base.double(), ref.double(), rtol=0.0, atol=near * (1 + largest))


def test_the_baseline_reads_delta_off_its_rounded_output() -> None:
    """With one key the score's true gradient is dlse alone: what is beside it is out's rounding."""
    q, k, v = (t.detach().half() for t in qkv(1, 1, 1, 1, 1))
    q.requires_grad_()
    v = v.float().fill_(1.0).half() + 2**-10  # 1.1113 of it has no float16
    out, lse = reference.baseline(samples.dropped(), q, k, v, params={"p": 0.1}, seed=0)
    (dq,) = torch.autograd.grad([out, lse], [q], [torch.ones_like(out), torch.zeros_like(lse)])
    weight = torch.tensor(1 / 0.9).half().float()
    ds = weight * v.float().sum(-1).half().float() - out.detach().float().sum(-1)
    assert ds.abs().max() > 1e-4
    torch.testing.assert_close(dq.float(), ds[..., None] * k.float() * 8**-0.5, rtol=5e-3, atol=1e-6)


# --- the expression table -------------------------------------------------------------------------------


def value(root: Expr, dtype: torch.dtype = torch.float64, **inputs: Tensor) -> Tensor:
    q, k, v = qkv(batch=1, heads=1, kv_heads=1, sq=1, sk=1)
    declared = tuple(
        Input(n, str(t.dtype).removeprefix("torch."), tuple(f"{n}{i}" for i in range(t.ndim)))
        for n, t in inputs.items()
    )
    env = reference.bind(variant("v", inputs=declared), q, k, v, inputs, {})
    return evaluate(root, Environment(env.grid, env.inputs, env.params, env.sizes), dtype)


@pytest.mark.parametrize(
    ("x", "y", "quotient", "rest"),
    [
        (7, 2, 3, 1),
        (-7, 2, -4, 1),
        (7, -2, -4, -1),
        (-7, -2, 3, -1),
        (5, 0, 0, 0),
        (-(2**63), -1, -(2**63), 0),
    ],
)
def test_integer_division_floors_and_by_zero_gives_zero(x: int, y: int, quotient: int, rest: int) -> None:
    assert value(make(Op.FLOORDIV, const(x), const(y))).item() == quotient
    assert value(make(Op.MOD, const(x), const(y))).item() == rest


@pytest.mark.parametrize(
    ("x", "want"),
    [(2.9, 2), (-2.9, -2), (1e20, 2**31 - 1), (-INF, -(2**31)), (INF, 2**31 - 1), (float("nan"), 0)],
)
def test_to_int_truncates_and_saturates(x: float, want: int) -> None:
    assert value(make(Op.TO_INT, const(x))).item() == want


def test_an_index_outside_reads_the_nearest_element_and_sends_its_gradient_there() -> None:
    table = torch.tensor([10.0, 20.0, 30.0], dtype=torch.float64, requires_grad=True)
    for index, want in ((-4, 0), (1, 1), (99, 2)):
        read = value(load("t", Type.FLOAT, (const(index),)), t=table)
        assert read.item() == table[want].item()
        (grad,) = torch.autograd.grad(read, table)
        assert grad.tolist() == [float(i == want) for i in range(3)]


def test_what_lies_under_int_floor_or_a_comparison_is_float32() -> None:
    third = make(Op.DIV, const(1.0), const(3.0))
    three = make(Op.MUL, make(Op.SUB, third, const(1 / 3)), const(1e9))  # 0 in float64, not in float32
    assert value(three).item() == 0
    rounded = torch.tensor(1 / 3, dtype=torch.float32)
    assert value(make(Op.EQ, make(Op.ADD, const(16777216.0), const(1.0)), const(16777216.0))).item() is True
    assert value(make(Op.FLOOR, make(Op.ADD, const(16777216.0), const(1.0)))).item() == 16777216.0
    assert value(make(Op.TO_INT, make(Op.ADD, const(16777216.0), const(1.0)))).item() == 16777216
    assert value(make(Op.LE, third, const(float(rounded)))).item() is True
    # and the same term, used as a value beside it, keeps float64
    both = make(Op.WHERE, make(Op.LT, const(0.0), third), third, const(0.0))
    assert value(both).item() == 1 / 3


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_narrow_inputs_widen_exactly(dtype: torch.dtype) -> None:
    x = torch.tensor([0.1, 3e-5, 1234.5]).to(dtype)
    read = value(load("x", Type.FLOAT, (const(1),)), x=x)
    assert read.dtype is torch.float64 and read.item() == x[1].double().item()


def derivative(build: Any, *at: float) -> list[float]:
    leaves = [torch.tensor(x, dtype=torch.float64, requires_grad=True) for x in at]
    names = ["x", "y", "z"][: len(at)]
    root = build(*(load(n, Type.FLOAT, ()) for n in names))
    grads = torch.autograd.grad(value(root, **dict(zip(names, leaves, strict=True))), leaves)
    return [g.item() for g in grads]


def test_derivatives_at_corners_are_the_languages() -> None:
    assert derivative(lambda x: make(Op.ABS, x), 0.0) == [0.0]
    assert derivative(lambda x, y: make(Op.MIN, x, y), 2.0, 2.0) == [0.5, 0.5]
    assert derivative(lambda x, y: make(Op.MAX, x, y), 2.0, 2.0) == [0.5, 0.5]
    for x, want in ((1.0, 1.0), (3.0, 1.0), (0.9, 0.0), (3.1, 0.0), (2.0, 1.0)):
        assert derivative(lambda x: make(Op.CLAMP, x, const(1.0), const(3.0)), x) == [want]
    assert derivative(lambda x: make(Op.ADD, x, make(Op.FLOOR, x)), 2.0) == [1.0]
    assert derivative(lambda x: make(Op.MUL, x, x), 3.0) == [6.0]


@pytest.mark.parametrize(
    "op", [Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.ABS, Op.NEG]
)
def test_derivatives_are_torchs_and_unused_ones_are_zero_not_nan(op: Op) -> None:
    x = 0.7
    step = 1e-6
    numeric = (value(make(op, const(x + step))).item() - value(make(op, const(x - step))).item()) / (2 * step)
    assert derivative(lambda x: make(op, x), x)[0] == pytest.approx(numeric, rel=1e-6)
    hidden = derivative(lambda x: make(Op.WHERE, make(Op.LT, x, x), make(op, x), const(1.0)), float("nan"))
    assert hidden == [0.0]


def test_fresh_sizes_are_read_off_the_inputs() -> None:
    t = torch.zeros(3, 7)
    assert value(size("t1"), t=t).item() == 7


def test_a_deep_expression_is_no_deeper_a_stack() -> None:
    root = real(POS)
    for _ in range(4000):
        root = make(Op.ADD, root, const(1.0))
    assert value(root).item() == 4000.0


@pytest.mark.parametrize(
    "line",
    [
        "score = softcap(score, 2.0)",
        "score = exp(0.3 * score) * score",
        "score = score / (1.0 + score * score) + sin(score)",
        "weight = weight * sigmoid(weight)",
        "score = sqrt(1.0 + score * score) + log(2.0 + cos(score))",
    ],
)
def test_second_derivatives_are_those_of_the_maths(line: str) -> None:
    """Elsewhere: kernels have first derivatives alone, and say that the reference has higher ones."""
    ir = attngen.compile(f"variant v\n{line}\nmask = causal\n").ir
    q, k, v = qkv(batch=1, heads=2, kv_heads=1, sq=3, sk=4, d=3, dv=2)

    def attention(*tensors: Tensor) -> Tensor:
        out = reference.attention(ir, *tensors)
        assert isinstance(out, Tensor)
        return out

    assert torch.autograd.gradgradcheck(attention, (q, k, v))
