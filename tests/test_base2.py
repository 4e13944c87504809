"""The rewritten score: the same number in base 2, and nothing that is compared or indexed changes form."""

from __future__ import annotations

import math
from functools import cache

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate, values_of
from ir_text import expr

from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import (
    SCORE,
    AttentionIR,
    Expr,
    Input,
    Op,
    Param,
    const,
    make,
    param,
    postorder,
    substitute,
)
from attngen.ir.types import Type
from attngen.plan.base2 import ONE, SCALE, Logits, base2

INPUTS = (Input("slopes", "float32", ("heads",)), Input("bias", "float32", ("heads", "k_len")))
PARAMS = tuple(Param(n, Type.FLOAT) for n in ("x", "y", "cap"))
DOT = 1.375
WORDS = {"q": 3, "k": 1, "h": 1, "b": 0, "q_len": 5, "k_len": 6, "heads": 2, "kv_heads": 2, "head_dim": 16}


def logits(score: Expr | str, scale: str = "1.0 / sqrt(float(head_dim))") -> Logits:
    root = expr(score) if isinstance(score, str) else score
    return base2(AttentionIR("x", expr(scale), score=(root,), inputs=INPUTS, params=PARAMS))


def env(scale: float, score: float, x: float = 0.7, y: float = -1.3, cap: float = 5.0) -> Env:
    inputs = {"slopes": [0.5, 0.25], "bias": [[0.1 * i for i in range(6)], [0.3] * 6]}
    return Env(WORDS, {"x": x, "y": y, "cap": cap, "scale": scale}, {}, inputs, score)


@pytest.mark.parametrize(
    ("score", "factor", "tile"),
    [
        ("score", "1.4426950408889634 * scale", "score"),
        ("score - slopes[h] * float(abs(dist))", "1.0", None),
        ("score * 2.0", None, "score"),
        ("-score", "1.0", None),  # a negative factor cannot leave the row's maximum
        ("score * x", "1.0", None),  # nor one of unknown sign
        ("cap * tanh(score / cap)", "1.0", None),
    ],
)
def test_a_positive_factor_of_the_whole_program_leaves_the_tile(
    score: str, factor: str | None, tile: str | None
) -> None:
    found = logits(score)
    if factor is not None:
        wanted = substitute(expr(factor.replace("scale", "cap")), {param("cap", Type.FLOAT): SCALE})
        assert found.factor is wanted
    if tile is not None:
        assert found.tile is expr(tile)


def test_a_constant_scale_is_written_out() -> None:
    found = logits("score", scale="0.5")
    assert evaluate(found.factor, Env()) == pytest.approx(0.5 / math.log(2))
    assert found.tile is SCORE


def test_biases_alone_are_linear() -> None:
    assert logits("score + slopes[h]").is_linear
    assert not logits("score * 2.0").is_linear
    assert logits("score * 2.0").derivative is not ONE


FLOATS = ["score", "x", "y", "cap", "slopes[h]", "bias[h, k]", "0.5", "-2.0", "float(dist)"]
CONDITIONS = ["score < x", "dist < 2", "floor(score) == 1.0", "int(score * x) < 3", "bias[h, int(score)] < y"]


@cache
def scores(depth: int = 5) -> st.SearchStrategy[str]:
    if depth == 0:
        return st.sampled_from(FLOATS)
    x = scores(depth - 1)
    return st.one_of(
        st.sampled_from(FLOATS),
        st.builds("({} {} {})".format, x, st.sampled_from(["+", "-", "*", "*", "/"]), x),
        st.builds("(-{})".format, x),
        st.builds("{}({})".format, st.sampled_from(["tanh", "sigmoid", "abs", "floor", "sin"]), x),
        st.builds("({} if {} else {})".format, x, st.sampled_from(CONDITIONS), x),
        st.builds("{}({}, {})".format, st.sampled_from(["min", "max"]), x, x),
    )


@settings(max_examples=400)
@given(score=scores(), x=st.sampled_from([0.7, 3.0, -2.0]), dot=st.sampled_from([DOT, -0.8, 40.0]))
def test_factor_times_tile_is_the_score_in_base_2(score: str, x: float, dot: float) -> None:
    scale = 0.25
    root = expr(score)
    plain = env(scale, scale * dot, x=x)
    values = values_of(root, plain)
    assume(all(abs(v) < 1e6 or v in (0, 1) for v in values.values()))
    assume(all(abs(values[n.args[1]]) > 1e-3 for n in postorder(root) if n.op is Op.DIV))
    close = [
        n for n in postorder(root) if n.op in (Op.FLOOR, Op.LT, Op.TO_INT) and n.args[0].type is Type.FLOAT
    ]
    for node in close:  # a last bit may pick another bucket only where the operand is on its edge
        operand = values[node.args[0]] - (values[node.args[1]] if node.op is Op.LT else 0)
        assume(abs(operand - round(operand)) > 1e-6)
    found = logits(root)
    raw = env(scale, dot, x=x)
    rewritten = evaluate(found.factor, raw) * evaluate(found.tile, raw)
    size = max(1.0, *(abs(v) for v in values.values()))
    assert rewritten == pytest.approx(values[root] / math.log(2), rel=1e-9, abs=1e-12 * size * size)
    assert rate_of(found.factor) <= Rate.PROGRAM
    assert evaluate(found.factor, raw) > 0


@given(score=scores())
def test_the_derivative_is_the_scores_own(score: str) -> None:
    root = expr(score)
    scale, step = 0.25, 1e-6
    around = [values_of(root, env(scale, s)) for s in (0.34375 - step, 0.34375, 0.34375 + step)]
    assume(all(abs(v) < 1e4 for values in around for v in values.values()))
    for node in postorder(root):
        if node.type is Type.BOOL or node.op in (Op.TO_INT, Op.FLOOR):
            assume(len({values[node] for values in around}) == 1)
        if node.op in (Op.MIN, Op.MAX):
            assume(abs(around[1][node.args[0]] - around[1][node.args[1]]) > 1e-3)
        if node.op in (Op.ABS, Op.DIV):
            assume(abs(around[1][node.args[-1]]) > 1e-2)
    slope = (around[2][root] - around[0][root]) / (2 * step)
    size = max(1.0, *(abs(v) for v in around[1].values()))
    derivative = evaluate(logits(root).derivative, env(scale, 0.34375 / scale))
    assert derivative == pytest.approx(slope, rel=1e-3, abs=1e-6 * size**3)


@pytest.mark.parametrize(
    "condition",
    ["score * x < y", "floor(score * x) < y", "int(score * x) < 3", "bias[h, int(score * x)] < y"],
)
def test_what_is_compared_floored_or_an_index_keeps_its_form(condition: str) -> None:
    found = logits(f"score * x if {condition} else score * y")
    kept = substitute(expr(condition), {SCORE: make(Op.MUL, SCALE, SCORE)})
    assert kept in postorder(found.tile)


def test_a_long_chain_is_rewritten_without_recursion() -> None:
    score = SCORE
    for n in range(3000):
        score = make(Op.ADD, make(Op.MUL, score, const(0.5)), const(float(n)))
    found = logits(score)
    assert evaluate(found.factor, env(0.25, 1.0)) > 0
