"""Derivatives: the table reads as calculus has it, and agrees with torch where torch has one."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from ir_text import expr, pairs, show

from attngen.analysis.derivative import PARTIALS, gradients
from attngen.ir.nodes import SCORE, SEARCHES, Expr, Op, const, load, make, param, postorder
from attngen.ir.types import Type

CASES = list(pairs("derivative", "score.txt"))


@pytest.mark.parametrize(("before", "after"), CASES, ids=[before for before, _ in CASES])
def test_derivative_reads_as_written_down(before: str, after: str) -> None:
    assert show(gradients(expr(before), [SCORE])[SCORE]) == show(expr(after))


def test_every_op_on_floats_has_a_row_and_an_example() -> None:
    leaves = {Op.CONST, Op.WORD, Op.SIZE, Op.PARAM, Op.SCORE, Op.WEIGHT, Op.LOAD, *SEARCHES}
    leaves |= {Op.VECTOR, Op.DOT}
    no_float_result = {Op.FLOORDIV, Op.MOD, Op.LT, Op.LE, Op.EQ, Op.NE, Op.AND, Op.OR, Op.NOT, Op.TO_INT}
    assert set(PARTIALS) == set(Op) - leaves - no_float_result
    shown = {node.op for before, _ in CASES for node in postorder(expr(before))}
    assert set(PARTIALS) <= shown


BIAS = load("bias", Type.FLOAT, ())
X = param("x", Type.FLOAT)


def test_several_leaves_at_once_and_an_absent_one() -> None:
    root = make(Op.MUL, SCORE, BIAS)
    assert gradients(root, [SCORE, BIAS, X]) == {SCORE: BIAS, BIAS: SCORE, X: const(0.0)}


def test_loads_of_one_input_at_two_places_are_two_leaves() -> None:
    root = expr("bias[k] * bias[q]")
    one, two = root.args
    assert gradients(root, [one, two]) == {one: two, two: one}


def at(node: Expr, score: float, **params: float | bool) -> float:
    return float(evaluate(node, Env(score=score, params=params, inputs={"bias": 0.5})))


@pytest.mark.parametrize(
    ("text", "score", "slope"),
    [
        ("abs(score)", 0.0, 0.0),
        ("clamp(score, -1.0, 1.0)", 1.0, 1.0),
        ("clamp(score, -1.0, 1.0)", -1.0, 1.0),
        ("clamp(score, -1.0, 1.0)", 1.5, 0.0),
        ("max(score, 0.0)", 0.0, 0.5),
        ("min(score, 3.0)", 3.0, 0.5),
        ("max(score, score)", 2.0, 1.0),
        ("clamp(score, 1.0, -1.0)", 0.0, 0.0),
        ("clamp(0.5, score, 1.0)", 0.7, 1.0),
        ("clamp(0.5, 0.0, score)", 0.2, 1.0),
    ],
)
def test_points_without_a_derivative_follow_the_convention(text: str, score: float, slope: float) -> None:
    assert at(gradients(expr(text), [SCORE])[SCORE], score) == slope


@pytest.mark.parametrize(
    "text",
    [
        "where(0.0 < score, sqrt(score), 0.0)",
        "where(0.0 < score, log(score) * sqrt(score), score)",
        "where(score < 1.0, score, exp(score * score * score))",
        "where(0.0 < score, 1.0 / score, 0.0) + where(0.0 < score, log(score), 0.0)",
        "where(p, sqrt(score), 0.0) + where(r, 2.0 * sqrt(score), 0.0)",
        "where(p, exp(score), 0.0) * where(r, log(score), 1.0)",
        "sqrt(where(0.0 < score, score * rsqrt(score), 1.0))",
        "max(score, 1.0 / score) if 0.0 < score else 0.0",
        "max(sqrt(score), 1.0) if 0.0 <= score else 0.0",
    ],
)
@pytest.mark.parametrize("score", [0.0, -1.0, 1e30])
def test_an_unchosen_branch_leaks_no_nan(text: str, score: float) -> None:
    slope = at(gradients(expr(text), [SCORE])[SCORE], score, p=False, r=False)
    assert not math.isnan(slope)
    if "p," in text:
        assert slope == 0.0


# Against torch's autograd in float64, on random expressions.

_TORCH = {
    Op.ADD: torch.add,
    Op.SUB: torch.sub,
    Op.MUL: torch.mul,
    Op.DIV: torch.div,
    Op.NEG: torch.neg,
    Op.ABS: torch.abs,
    Op.MIN: torch.minimum,
    Op.MAX: torch.maximum,
    Op.CLAMP: torch.clamp,
    Op.EXP: torch.exp,
    Op.LOG: torch.log,
    Op.SQRT: torch.sqrt,
    Op.RSQRT: torch.rsqrt,
    Op.TANH: torch.tanh,
    Op.SIGMOID: torch.sigmoid,
    Op.SIN: torch.sin,
    Op.COS: torch.cos,
    Op.FLOOR: torch.floor,
    Op.LT: torch.lt,
    Op.LE: torch.le,
    Op.WHERE: torch.where,
}


def by_torch(root: Expr, leaves: dict[Expr, float]) -> tuple[float, list[float]]:
    tensors = {node: torch.tensor(x, dtype=torch.float64, requires_grad=True) for node, x in leaves.items()}
    values: dict[Expr, torch.Tensor] = dict(tensors)
    for node in postorder(root):
        if node.op is Op.CONST:
            values[node] = torch.tensor(node.value, dtype=torch.float64)
        elif node not in values:
            values[node] = _TORCH[node.op](*(values[a] for a in node.args))
    found = values[root]
    if not found.requires_grad:
        return float(found), [0.0] * len(tensors)
    grads = torch.autograd.grad(found, list(tensors.values()), allow_unused=True)
    return float(found.detach()), [0.0 if g is None else float(g) for g in grads]


_UNARY = [Op.NEG, Op.ABS, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.FLOOR]


def _grow(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    return st.one_of(
        st.builds(make, st.sampled_from(_UNARY), inner),
        st.builds(make, st.sampled_from([Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MIN, Op.MAX]), inner, inner),
        st.builds(make, st.just(Op.CLAMP), inner, st.just(const(-0.7)), st.just(const(1.3))),
        st.builds(
            lambda op, a, b, x, y: make(Op.WHERE, make(op, a, b), x, y),
            st.sampled_from([Op.LT, Op.LE]),
            inner,
            inner,
            inner,
            inner,
        ),
    )


FLOATS = st.recursive(
    st.sampled_from([SCORE, SCORE, BIAS]) | st.sampled_from([0.5, 2.0, -1.5]).map(const), _grow, max_leaves=8
)
# Numbers that are no float32 values and no simple combination of the constants: no ties, no bounds.
REALS = st.integers(-30, 30).map(lambda i: i / 9 + 0.0123456789)


@settings(max_examples=300, deadline=None)
@given(FLOATS, REALS, REALS)
def test_agrees_with_autograd(root: Expr, score: float, bias: float) -> None:
    value, expected = by_torch(root, {SCORE: score, BIAS: bias})
    assume(math.isfinite(value) and all(math.isfinite(g) and abs(g) < 1e8 for g in expected))
    env = Env(score=score, inputs={"bias": bias})
    assume(math.isclose(float(evaluate(root, env)), value, rel_tol=1e-9, abs_tol=1e-12))  # no tie by rounding
    slopes = gradients(root, [SCORE, BIAS])
    got = [float(evaluate(slopes[node], env)) for node in (SCORE, BIAS)]
    scale = 1 + max(map(abs, expected))
    assert got == pytest.approx(expected, rel=1e-6, abs=1e-7 * scale)


def test_a_deep_chain_stays_linear() -> None:
    node = SCORE
    for i in range(500):
        node = make(
            Op.WHERE, make(Op.LT, node, const(float(i))), make(Op.TANH, node), make(Op.MUL, node, node)
        )
    slope = gradients(node, [SCORE])[SCORE]
    assert len(postorder(slope)) < 20 * 500
