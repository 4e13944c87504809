"""``normalize`` and ``weight``: from the clause to the kernels, the reference and the CPU path."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from kernel_calls import gradients, judge, qkv, small_tiles, variant_of
from torch import Tensor

import attngen
from attngen import blockwise, reference
from attngen.analysis.homogeneous import degree_of
from attngen.analysis.simplify import simplify_ir
from attngen.bench.inputs import plausible_inputs
from attngen.errors import SpecTypeError
from attngen.ir.build import build
from attngen.ir.nodes import AttentionIR, Expr
from attngen.plan.weights import Forward, weights_of
from attngen.source import Source
from attngen.syntax.parse import parse
from attngen.testing import specs
from attngen.testing.run import run_property_tests

pytestmark = pytest.mark.usefixtures("one_thread")

GATE = "input gate: float32[batch, heads, q_len] grad"
BY_HEAD = "input x: float32[heads] grad"


def ir_of(*lines: str) -> AttentionIR:
    source = Source("\n".join(["variant tested", *lines]))
    return simplify_ir(build(parse(source), source))


def weight_of(text: str) -> Expr:
    weight = ir_of("param t: float", "input x: float32[heads]", f"weight = {text}").weight
    assert weight is not None
    return weight


# ---- When a weight is final --------------------------------------------------------------------------------

DEGREES = {
    "weight": 1,
    "-weight / 3": 1,
    "weight * x[h] * exp(-0.1 * abs(dist))": 1,
    "weight / (1 + dist ** 2)": 1,
    "where(dist > 3, weight, 0.0)": 1,
    "min(weight, 0.5 * weight) + max(weight, 0)": 1,
    "weight ** 2": 2,
    "weight * weight * weight / k_len": 3,
    "weight * abs(weight - 2 * weight)": 2,
    "weight + weight ** 2": None,
    "weight + 0.1": None,
    "weight / weight ** 2": None,
    "max(weight - t, 0)": None,
    "where(weight > t, weight, 0.0)": None,
    "tanh(weight)": None,
    "0.0 * 1.0": None,
}


@pytest.mark.parametrize("text", DEGREES)
def test_a_clause_has_the_degree_that_scaling_the_weight_shows(text: str) -> None:
    assert degree_of(weight_of(text)) == DEGREES[text]


def _terms(depth: int) -> st.SearchStrategy[str]:
    leaves = st.sampled_from(["weight", "weight", "t", "2.0", "0.0", "float(dist)"])
    if depth == 0:
        return leaves
    x = _terms(depth - 1)
    return st.one_of(
        leaves,
        st.builds("({} {} {})".format, x, st.sampled_from("+-*/"), x),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), x, x),
        st.builds("where({} < {}, {}, {})".format, x, x, x, x),
        st.builds("abs({})".format, x),
    )


@settings(max_examples=80, deadline=None)
@given(text=_terms(3), weight=st.floats(0.1, 1.0), t=st.floats(-2.0, 2.0))
def test_a_degree_is_kept_by_whatever_the_weight_is_scaled_by(text: str, weight: float, t: float) -> None:
    try:
        clause = weight_of(text)
    except attngen.AttnGenError:  # a constant without a value
        return
    degree = degree_of(clause)
    if degree is None:
        return
    words = {"pos": 5, "k": 2}
    one, three = (float(evaluate(clause, Env(words, {"t": t}, weight=w))) for w in (weight, 3.0 * weight))
    if math.isfinite(one) and math.isfinite(three):
        assert three == pytest.approx(one * 3.0**degree, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize(
    ("lines", "forward"),
    [
        (["mask = causal"], Forward.ONLINE),
        (["weight = weight * exp(-0.1 * dist)"], Forward.ONLINE),
        (["weight = weight ** 4"], Forward.ONLINE),
        (["weight = weight ** 5"], Forward.TWO_PASSES),  # the fifth power of a sum may leave float32
        (["weight = max(weight - 0.1, 0)"], Forward.TWO_PASSES),
        (["weight = 0.5"], Forward.TWO_PASSES),  # nothing is left to divide, but the log-sum-exp is wanted
        (["normalize = softmax", "weight = weight + 1"], Forward.TWO_PASSES),
        (["normalize = relu"], Forward.AT_ONCE),
        (["normalize = sigmoid(0.0)", "weight = weight + 1"], Forward.AT_ONCE),
    ],
)
def test_a_second_pass_is_made_only_where_the_clause_needs_one(lines: list[str], forward: Forward) -> None:
    assert weights_of(ir_of(*lines)).forward is forward
    source = variant_of(*lines).source
    assert ("def sum_up(" in source) is (forward is Forward.TWO_PASSES)
    assert ("def accumulate_delta(" in source) is (forward is Forward.TWO_PASSES)


def test_what_has_no_sum_keeps_no_maximum_no_rescale_and_no_log_sum_exp() -> None:
    source = variant_of("mask = causal", "normalize = relu").source
    code = source.split('"""', 2)[2]
    for word in ("row_max", "row_sum", "rescale", "lse2", "Lse", "delta", "EXACT", "padded", "weight_of"):
        assert word not in code.replace("weight_slope", ""), word


def test_a_clause_that_says_what_is_so_anyway_changes_no_kernel() -> None:
    def code(*lines: str) -> str:
        return variant_of(*lines).source.split('"""', 2)[2].split("NAMESPACE")[0]

    assert code("mask = causal", "normalize = softmax") == code("mask = causal")


# ---- Against the reference ---------------------------------------------------------------------------------

VARIANTS: dict[str, tuple[str, ...]] = {
    "sigmoid": ("mask = causal", "normalize = sigmoid(-log(k_len))"),
    "sigmoid learned": (BY_HEAD, "mask = causal", "normalize = sigmoid(2 * x[h])"),
    "relu": ("normalize = relu", "weight = weight / k_len"),
    "decay": ("mask = causal", "weight = weight * exp(-0.1 * dist)"),
    "gate": (GATE, "mask = causal", "weight = weight * sigmoid(gate[b, h, q])"),
    "square": ("mask = causal", "weight = weight ** 2"),
    "clip": ("mask = causal", "weight = clamp(1.06 * weight - 0.03, 0.0, 1.0)"),
    "shift": ("mask = sliding_window(20)", "weight = 0.5 * weight + 0.1"),
}
MORE: dict[str, tuple[str, ...]] = {
    "relu square": ("mask = causal", "normalize = relu", "weight = weight ** 2"),
    "relu softcap": ("mask = causal", "score = softcap(score, 3.0)", "normalize = relu"),
    "relu dropout": ("mask = sliding_window(20)", "normalize = relu", "dropout = 0.3"),
    "two ranges": (
        "mask = causal and (dist < 20 or k < 4)",
        "normalize = sigmoid(0.5)",
        "weight = weight * weight",
    ),
    "cube": ("weight = weight ** 3 * 2.0", "dropout = 0.2"),
    "sink and clip": (
        BY_HEAD,
        "mask = causal",
        "weight = clamp(1.06 * weight - 0.03, 0.0, 1.0)",
        "sink = x[h]",
    ),
    "shift dropped": ("weight = weight + 0.05", "dropout = 0.2"),
    "learned shift": (
        "input e: float32[heads, q_len, k_len] grad",
        "mask = causal",
        "weight = weight + e[h, q, k]",
    ),
    "learned shift of a sigmoid": (
        BY_HEAD,
        "mask = causal",
        "normalize = sigmoid(-2.0)",
        "weight = weight + x[h]",
    ),
    "learned in both": (
        BY_HEAD,
        "mask = causal",
        "score = score + x[h] * tanh(score)",
        "weight = weight * (1.0 + x[h] * 0.1 * dist)",
    ),
    "root": ("mask = causal", "weight = sqrt(weight + 0.1)"),
    "pole": ("mask = dist != 0", "weight = weight / dist"),
    "scale by head": (BY_HEAD, "scale = 0.2 + 0.1 * x[h]", "normalize = sigmoid(0.0)"),
}


def check(lines: tuple[str, ...], examples: int) -> None:
    report = run_property_tests(variant_of(*lines), examples=examples, max_length=50, shrink_seconds=5.0)
    assert report.passed, report.failure


@pytest.mark.parametrize("name", VARIANTS)
def test_the_kernels_are_the_references(name: str) -> None:
    check(VARIANTS[name], 2)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*VARIANTS, *MORE])
def test_the_kernels_are_the_references_in_many_calls(name: str) -> None:
    check({**VARIANTS, **MORE}[name], 12)


@pytest.mark.slow
def test_the_kernels_of_drawn_specs_with_these_clauses_are_the_references() -> None:
    found: dict[str, None] = {}

    @settings(
        max_examples=120,
        phases=[Phase.generate],
        database=None,
        deadline=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
    )
    @given(specs())
    def collect(spec: str) -> None:
        if "normalize =" in spec or "weight =" in spec:
            found[spec] = None

    collect()
    assert len(found) >= 20
    for spec in list(found)[:40]:
        report = run_property_tests(attngen.compile(spec), examples=2, shrink_seconds=5.0)
        assert report.passed, f"{spec}\n{report.failure}"


def eager(weights: Tensor, v: Tensor) -> Tensor:
    return torch.where(torch.ones(weights.shape[-2:], dtype=torch.bool).tril(), weights, 0.0) @ v


def test_the_reference_is_the_maths_written_out() -> None:
    q, k, v = (x.double().requires_grad_() for x in qkv(heads=2, q_len=9))
    score = q @ k.mT / 4.0
    masked = score.masked_fill(torch.ones(9, 9, dtype=torch.bool).triu(1), -math.inf)
    p = torch.softmax(masked, -1)
    for lines, want in {
        ("normalize = sigmoid(-log(k_len))",): eager(torch.sigmoid(score - math.log(9)), v),
        ("normalize = relu", "weight = weight / k_len"): eager(torch.relu(score) / 9, v),
        ("weight = weight ** 2",): p.square() @ v,
        ("weight = clamp(1.03 * weight - 0.03, 0, 1)",): (1.03 * p - 0.03).clamp(0, 1) @ v,
        ("weight = weight + 0.1",): eager(p + 0.1, v),
    }.items():
        got = variant_of("mask = causal", *lines).reference(q, k, v)
        assert isinstance(got, Tensor)
        torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-12)
        weights = torch.randn(want.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
        both = [torch.autograd.grad(x, [q, k, v], weights, retain_graph=True) for x in (got, want)]
        for mine, theirs in zip(*both, strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-11)


@pytest.mark.parametrize("name", VARIANTS)
def test_row_blocks_give_the_references_result_and_gradients(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blockwise, "_BLOCK_SCORES", 8 * 2 * 15)
    variant = variant_of(*VARIANTS[name])
    q, k, v = qkv(heads=2, kv_heads=1, q_len=13, k_len=15)
    inputs = plausible_inputs(variant.ir, q, k, v)
    results = []
    for run, dtype in ((blockwise.attention, torch.float32), (reference.attention, torch.float64)):
        leaves = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        given_ = {n: x.to(dtype).requires_grad_() for n, x in inputs.items()}
        found: Any = run(variant.ir, *leaves, inputs=given_)
        out = found[0] if isinstance(found, tuple) else found
        leaves += given_.values()
        results.append([out, *torch.autograd.grad(out.cos().sum(), leaves)])
    for mine, exact in zip(*results, strict=True):
        torch.testing.assert_close(mine.double(), exact, rtol=2e-4, atol=2e-5)


# ---- At the edges ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["sigmoid(0.0)", "relu"])
def test_a_log_sum_exp_that_does_not_exist_is_refused_by_name(way: str) -> None:
    variant = variant_of(f"normalize = {way}")
    with pytest.raises(ValueError, match="return_lse"):
        variant(*qkv(), return_lse=True)
    with pytest.raises(ValueError, match="return_lse"):
        variant.reference(*qkv(), return_lse=True)


@pytest.mark.parametrize("lines", [("normalize = sigmoid(1.0)",), ("normalize = relu",), ()])
def test_what_is_masked_weighs_nothing_whatever_is_added_to_the_weights(lines: tuple[str, ...]) -> None:
    variant = variant_of("mask = 3 <= k < 9 and q > 1", *lines, "weight = weight + 1.0")
    q, k, v = qkv(q_len=6, k_len=40)
    with small_tiles(variant):
        out = variant(q, k, v)
    assert not out[:, :, :2].any()  # rows that keep nothing
    wanted = variant.reference(q, k, v)
    torch.testing.assert_close(out.double(), wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("lines", [("normalize = sigmoid(0.0)",), ("normalize = relu",), ()])
def test_a_factor_that_is_infinite_where_nothing_is_kept_makes_no_nan(lines: tuple[str, ...]) -> None:
    variant = variant_of("mask = dist > 0", *lines, "weight = weight / dist")
    q, k, v = (x.requires_grad_() for x in qkv(q_len=20))
    out = variant(q, k, v)
    for x in (out, *torch.autograd.grad(out.sum(), [q, k, v])):
        assert x.isfinite().all()


def test_relus_derivative_at_0_is_0_in_kernel_and_reference() -> None:
    variant = variant_of("normalize = relu")
    q, k, v = qkv(heads=1, q_len=5)
    k = k.requires_grad_()
    q = torch.zeros_like(q).requires_grad_()  # every score is 0
    for call in (variant, variant.reference):
        (dq,) = torch.autograd.grad(call(q, k, v).sum(), [q])  # type: ignore[union-attr]
        assert not dq.any()


@pytest.mark.parametrize("name", ["sigmoid", "relu", "clip", "square"])
@pytest.mark.parametrize("lengths", [(7, 0), (0, 7), (1, 1), (19, 3)])
def test_any_length_from_0_up(name: str, lengths: tuple[int, int]) -> None:
    judge(variant_of(*VARIANTS[name]), q_len=lengths[0], k_len=lengths[1], heads=2, kv_heads=1)


def test_scores_of_any_size_give_no_overflow() -> None:
    q, k, v = qkv(q_len=20)
    for lines in (("normalize = sigmoid(0.0)",), VARIANTS["clip"], VARIANTS["square"]):
        out = variant_of("scale = 1000.0", *lines)(q, k, v)
        assert out.isfinite().all()


@pytest.mark.parametrize("name", ["gate", "sigmoid learned"])
def test_gradients_of_learned_inputs_in_these_clauses_have_the_same_bits_every_time(name: str) -> None:
    variant = variant_of(*VARIANTS[name])
    q, k, v = qkv(batch=2, heads=2, q_len=40)
    learned = {n: x.requires_grad_() for n, x in plausible_inputs(variant.ir, q, k, v).items()}
    found = [torch.autograd.grad(variant(q, k, v, **learned).sum(), list(learned.values())) for _ in "ab"]
    assert all(torch.equal(x, y) and x.any() for x, y in zip(*found, strict=True))


def test_the_log_sum_exp_is_the_softmaxs_and_comes_before_the_weight_clause() -> None:
    q, k, v = qkv(q_len=9)
    plain = gradients(variant_of("mask = causal"), q, k, v)
    for name in ("square", "clip", "decay"):
        _, lse, *_ = gradients(variant_of(*VARIANTS[name]), q, k, v)
        torch.testing.assert_close(lse, plain[1], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    "line", ["weight = True", "score = True", "scale = True", "sink = True", "normalize = sigmoid(True)"]
)
def test_a_bool_is_no_number_in_any_clause(line: str) -> None:
    source = Source(f"variant m\n{line}\n")
    with pytest.raises(SpecTypeError, match="is a number, not a bool"):
        build(parse(source), source, {})
