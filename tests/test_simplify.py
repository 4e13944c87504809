"""Simplifying: every rule by example, and the value never changes."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from ir_samples import alibi, documents, softcap
from ir_text import FIXTURES, expr, pairs, show

from attngen.analysis.simplify import RULES, simplify, simplify_ir
from attngen.ir.nodes import SCORE, Expr, Op, const, load, make, param, postorder, word
from attngen.ir.types import Scalar, Type

CASES = list(pairs("simplify", "rules.txt"))


@pytest.mark.parametrize(("before", "after"), CASES, ids=[before for before, _ in CASES])
def test_rule_by_example(before: str, after: str) -> None:
    assert show(simplify(expr(before))) == show(expr(after))


def test_every_rule_has_a_fixture_and_an_example() -> None:
    headings = re.findall(r"^# (.+)$", FIXTURES.joinpath("simplify", "rules.txt").read_text(), re.MULTILINE)
    named = set(re.findall(r"\w+", " ".join(headings)))
    for rules in RULES.values():
        for rule in rules:
            assert rule.__name__ in named
            assert "->" in (rule.__doc__ or ""), rule.__name__


WORDS = {"q": 5, "k": 2, "b": 1, "h": 3, "q_len": 7, "k_len": 9, "heads": 4, "kv_heads": 2, "batch": 2}
INT_LEAF = st.one_of(
    st.sampled_from(
        [word("q"), word("k"), word("pos"), param("n", Type.INT), load("lens", Type.INT, (word("b"),))]
    ),
    st.sampled_from([-2, -1, 0, 1, 2, 3, 2**62]).map(const),
)
FLOAT_LEAF = st.one_of(
    st.sampled_from([SCORE, param("x", Type.FLOAT), load("bias", Type.FLOAT, (word("k"),))]),
    st.sampled_from([-0.0, 0.0, 1.0, -1.0, 0.5, 0.1, 3.0, math.inf]).map(const),
)
BOOL_LEAF = st.sampled_from([const(True), const(False), param("p", Type.BOOL), param("r", Type.BOOL)])

_SAME = [Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX]
_FLOAT_ONE = [Op.FLOOR, Op.SQRT, Op.EXP, Op.LOG, Op.TANH, Op.SIGMOID, Op.RSQRT, Op.SIN, Op.COS]


@st.composite
def expressions(draw: st.DrawFn, kind: Type, depth: int = 4) -> Expr:
    """A random expression; subterms repeat often, since rules look for twins."""
    if depth == 0 or draw(st.integers(0, 4)) == 0:
        return draw({Type.INT: INT_LEAF, Type.FLOAT: FLOAT_LEAF, Type.BOOL: BOOL_LEAF}[kind])
    first = draw(expressions(kind, depth - 1))
    shape = draw(st.integers(0, 5))
    if shape == 0:
        test = draw(expressions(Type.BOOL, depth - 1))
        return make(Op.WHERE, test, first, draw(expressions(kind, depth - 1)))
    if kind is Type.BOOL:
        if shape <= 3:
            other = draw(st.sampled_from([Type.INT, Type.FLOAT, Type.BOOL]))
            ops = [Op.EQ, Op.NE] if other is Type.BOOL else [Op.LT, Op.LE, Op.EQ, Op.NE]
            left = draw(expressions(other, depth - 1))
            right = left if draw(st.booleans()) else draw(expressions(other, depth - 1))
            return make(draw(st.sampled_from(ops)), left, right)
        if shape == 4:
            return make(Op.NOT, first)
        second = draw(st.sampled_from([first, make(Op.NOT, first)]) | expressions(kind, depth - 1))
        return make(draw(st.sampled_from([Op.AND, Op.OR])), first, second)
    if shape == 1:
        return make(draw(st.sampled_from([Op.NEG, Op.ABS])), first)
    second = draw(st.just(first) | expressions(kind, depth - 1))
    if shape == 2:
        return make(Op.CLAMP, first, second, draw(expressions(kind, depth - 1)))
    if shape == 3:
        if kind is Type.FLOAT:
            return make(draw(st.sampled_from(_FLOAT_ONE)), first)
        return make(draw(st.sampled_from([Op.FLOORDIV, Op.MOD])), first, second)
    if shape == 4:
        if kind is Type.FLOAT:
            return draw(st.sampled_from([make(Op.DIV, first, second), make(Op.TO_FLOAT, word("q"))]))
        return make(Op.TO_INT, draw(expressions(Type.FLOAT, depth - 1)))
    return make(draw(st.sampled_from(_SAME)), first, second)


def same(one: Scalar, two: Scalar) -> bool:
    if isinstance(one, float) and isinstance(two, float):
        if math.isnan(one) or math.isnan(two):
            return math.isnan(one) and math.isnan(two)
        return one == two and math.copysign(1, one) == math.copysign(1, two)
    return type(one) is type(two) and one == two


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(Type).flatmap(expressions),
    st.sampled_from([0.0, -0.0, 1.5, math.inf, -math.inf, math.nan]),
    st.sampled_from([0.25, -3.0, 0.0]),
    st.integers(-3, 3),
    st.booleans(),
    st.booleans(),
)
def test_the_value_stays(root: Expr, score: float, x: float, n: int, p: bool, r: bool) -> None:
    env = Env(
        words=WORDS,
        params={"n": n, "x": x, "p": p, "r": r},
        inputs={"lens": [4, -6], "bias": [1.0, math.nan, score]},
        score=score,
    )
    less = simplify(root)
    assert same(evaluate(root, env), evaluate(less, env))
    assert simplify(less) is less, "one walk is enough"
    assert len(postorder(less)) <= len(postorder(root)) + 2  # a shared constant may split in two


def test_clauses_stay_linked_and_names_follow() -> None:
    ir = softcap()
    doubled = make(Op.MUL, ir.score[0], const(1.0))
    before = replace(
        ir, score=(ir.score[0], doubled), names={doubled: "same"}, mask=expr("True and 0 <= dist")
    )
    after = simplify_ir(before)
    assert after.score == (ir.score[0], ir.score[0])
    assert after.names == {ir.score[0]: "same"}
    assert after.mask is expr("0 <= dist")


def test_simple_variants_stay_as_they_are() -> None:
    for ir in (alibi(), softcap(), documents()):
        assert simplify_ir(ir) == ir


def test_depth_is_no_limit() -> None:
    node = word("q")
    for i in range(20_000):
        node = make(Op.ADD, node, const(i % 3 - 1))
    assert simplify(node).op in (Op.WORD, Op.ADD, Op.SUB)
