"""Intervals hold every value that an expression takes, and are tight where a decision hangs on it."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, to_float32, values_of
from ir_text import expr

from attngen.analysis.interval import (
    Interval,
    certainly,
    excludes_zero,
    fits_int32,
    interval_of,
    intervals,
    is_finite,
    is_positive,
    maybe_neg_inf,
)
from attngen.eager import Environment, Grid, evaluate
from attngen.ir.fold import apply
from attngen.ir.nodes import AttentionIR, Expr, Op, const, load, make, param, postorder, word
from attngen.ir.types import Type

DTYPES = {"lens": "int32", "wide": "int64", "bias": "float32"}


def of(text: str) -> Interval:
    node = expr(text)
    return intervals(node, dtypes=DTYPES)[node]


def test_default_scale_is_positive_and_finite() -> None:
    scale = of("1.0 / sqrt(float(head_dim))")
    assert is_positive(scale) and is_finite(scale) and excludes_zero(scale)
    assert 0.03 < scale.lo < 0.032 and 1.0 <= scale.hi < 1.001


@pytest.mark.parametrize(
    ("text", "lo", "hi"),
    [
        ("dist", -(2**30) + 1, 2**30 - 1),
        ("abs(dist)", 0, 2**30 - 1),
        ("q_last + (k_len - q_len)", -(2**30), 2**30 - 1),
        ("q_last + (k_len - q_len) + 1", -(2**30) + 1, 2**30),
        ("k_first - (k_len - q_len)", -(2**30), 2**30 - 1),
        ("q_last - q_first", 0, 2**30 - 1),
        ("q % 64", 0, 63),
        ("dist % 64", 0, 63),
        ("q % -64", -63, 0),
        ("q // 64", 0, 2**24 - 1),
        ("dist // 2", -(2**29), 2**29 - 1),
        ("5 // 0", 0, 0),
        ("clamp(dist, -8, 8)", -8, 8),
        ("min(lens[b], 7)", -(2**31), 7),
        ("int(score)", -(2**31), 2**31 - 1),
        ("int(tanh(score))", -1, 1),
        ("dist * dist", 0, (2**30 - 1) ** 2),
        ("k - k", 0, 0),
        ("where(p, 3, -2)", -2, 3),
        ("where(q < 0, 3, -2)", -2, -2),
        ("where(q < 8, q, 9)", 0, 9),
        ("where(q <= 8, q, 9)", 0, 9),
        ("where(q < 8, 5, q)", 5, 2**30 - 1),
        ("where(8 < q, q, 9)", 9, 2**30 - 1),
        ("where(dist < 0, dist, 0)", -(2**30) + 1, 0),
        ("where(q < k, q, k)", 0, 2**30 - 1),
    ],
)
def test_known_integers(text: str, lo: int, hi: int) -> None:
    assert (of(text).lo, of(text).hi) == (lo, hi)


def test_what_fits_int32() -> None:
    assert fits_int32(of("pos - k"))
    assert fits_int32(of("q_last + (k_len - q_len) + 1"))
    assert not fits_int32(of("dist - 2 * k"))
    assert not fits_int32(of("n + 1"))
    assert not fits_int32(of("q * k"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("k < 0", False),
        ("0 <= k", True),
        ("k < k_len", True),
        ("q_len <= q", False),
        ("dist < 0 and k < 0", False),
        ("0 <= dist", None),
        ("not k < 0", True),
        ("tanh(score) <= 1.0", None),  # NaN compares false
        ("2.0 < tanh(score)", False),
        ("sin(float(q)) <= 1.0", True),
        ("score != score", None),
        ("k < 0 or p", None),
    ],
)
def test_conditions_that_never_change(text: str, value: bool | None) -> None:
    assert certainly(of(text)) is value


def test_floats() -> None:
    assert of("score") == Interval(-math.inf, math.inf, may_nan=True)
    assert maybe_neg_inf(of("score")) and not maybe_neg_inf(of("exp(min(score, 1.0))"))
    assert of("exp(clamp(float(k), 0.0, 1.0))").hi < 2.72
    assert not is_positive(of("exp(-float(k))")), "it underflows to 0"
    assert is_positive(of("exp(-float(k % 8))"))
    assert of("tanh(score)") == Interval(-1.0, 1.0, may_nan=True)
    assert of("float(k) * float(k)").lo == 0
    assert not of("float(k) - float(q)").may_nan
    assert of("1.0 / float(k)").may_nan
    assert not is_finite(of("x * x")), "a product of two params may overflow float32"
    assert of("sqrt(float(dist))").may_nan
    assert is_finite(of("log(float(k + 1))"))


def test_inputs_of_a_variant() -> None:
    node = expr("lens[b]")
    ir = AttentionIR("v", const(1.0), mask=expr("k < lens[b]"))
    assert interval_of(node, ir=ir)[node].hi == 2**63 - 1


SMALL = st.sampled_from([-3, -1, 0, 1, 2, 5])
WORDS = ("q", "k", "pos", "b", "h", "q_len", "k_len", "head_dim")
INT_LEAF = st.one_of(
    st.sampled_from([word(w) for w in WORDS] + [param("n", Type.INT), load("lens", Type.INT, (word("b"),))]),
    SMALL.map(const),
)
FLOAT_LEAF = st.sampled_from(
    [
        const(0.0),
        const(1.0),
        const(-0.3),
        const(80.0),
        param("x", Type.FLOAT),
        load("bias", Type.FLOAT, (word("k"),)),
    ]
)


def _floats(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    one = [Op.NEG, Op.ABS, Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS, Op.FLOOR]
    two = [Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MIN, Op.MAX]
    return st.one_of(
        st.builds(make, st.sampled_from(one), inner),
        st.builds(make, st.sampled_from(two), inner, inner),
        st.builds(make, st.just(Op.CLAMP), inner, inner, inner),
        st.builds(lambda x, y: make(Op.WHERE, make(Op.LT, x, y), y, x), inner, inner),
        st.builds(lambda x: make(Op.TO_FLOAT, make(Op.TO_INT, x)), inner),
    )


def _ints(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    two = [Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX, Op.FLOORDIV, Op.MOD]
    return st.one_of(
        st.builds(make, st.sampled_from(two), inner, inner),
        st.builds(make, st.sampled_from([Op.NEG, Op.ABS]), inner),
        st.builds(make, st.just(Op.CLAMP), inner, inner, inner),
        st.builds(
            lambda op, x, y: make(Op.WHERE, make(op, x, y), y, x),
            st.sampled_from([Op.LT, Op.EQ]),
            inner,
            inner,
        ),
    )


INTS = st.recursive(INT_LEAF, _ints, max_leaves=8)
FLOATS = st.recursive(FLOAT_LEAF | INTS.map(lambda n: make(Op.TO_FLOAT, n)), _floats, max_leaves=8)


NUMBERS = st.sampled_from(
    [0.0, -0.0, -1.5, 0.1, 1e-45, 1e-38, -3e38, 3.4028234663852886e38, math.inf, -math.inf, math.nan]
).map(to_float32)
INT32 = SMALL | st.sampled_from([-(2**31), -(2**31) + 1, 2**31 - 2, 2**31 - 1])
INT64 = INT32 | st.sampled_from([-(2**63), -(2**62), 2**62, 2**63 - 1])
WIDE_LEAF = load("wide", Type.INT, (word("h"),))


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(INT_LEAF | st.just(WIDE_LEAF), _ints, max_leaves=6)
    | st.recursive(
        FLOAT_LEAF | (INTS | st.just(WIDE_LEAF)).map(lambda n: make(Op.TO_FLOAT, n)), _floats, max_leaves=8
    ),
    st.integers(1, 5),
    INT32,
    st.lists(INT32, min_size=2, max_size=2),
    st.lists(INT64, min_size=3, max_size=3),
    st.lists(NUMBERS, min_size=5, max_size=5),
    NUMBERS,
)
def test_what_float32_and_int64_compute_lies_inside(
    root: Expr, k_len: int, n: int, lens: list[int], wide: list[int], bias: list[float], x: float
) -> None:
    """Every node, at every position, computed by torch: infinities, NaN, the least and greatest numbers."""
    env = Environment(
        grid=Grid(2, 3, 3, 3, k_len, 64, 64, 0, 3, torch.device("cpu")),
        inputs={"lens": torch.tensor(lens), "wide": torch.tensor(wide), "bias": torch.tensor(bias)},
        params={"n": n, "x": x},
        sizes={},
    )
    found = intervals(root, dtypes=DTYPES)
    for node in postorder(root):
        values = evaluate(node, env, torch.float32)
        interval = found[node]
        if node.type is Type.FLOAT:
            assert interval.may_nan or not values.isnan().any(), node
            values = values[~values.isnan()]
        assert all(interval.lo <= value <= interval.hi for value in values.flatten().tolist()), node


def test_a_quotient_has_room_for_an_approximate_division() -> None:
    """The GPU's division is off by up to two units in the last place."""
    quotient = of("float(1 + k % 7) / float(3 + h % 2)")
    assert quotient.lo < 0.25 and quotient.hi > 7 / 3 * (1 + 2.0**-22)
    assert not certainly(of("0.25 <= float(1 + k % 7) / float(3 + h % 2)"))
    assert certainly(of("0.2499 <= float(1 + k % 7) / float(3 + h % 2)"))


@settings(max_examples=500, deadline=None)
@given(
    INTS | FLOATS,
    st.integers(1, 9),
    st.integers(1, 9),
    st.data(),
    SMALL,
    NUMBERS,
    NUMBERS,
)
def test_every_value_lies_inside(
    root: Expr, q_len: int, k_len: int, data: st.DataObject, n: int, number: float, x: float
) -> None:
    words = {
        "q": data.draw(st.integers(0, q_len - 1)),
        "k": data.draw(st.integers(0, k_len - 1)),
        "b": 1,
        "h": 2,
        "q_len": q_len,
        "k_len": k_len,
        "head_dim": 64,
    }
    env = Env(words=words, params={"n": n, "x": x}, inputs={"lens": [n], "bias": [number]})
    found = intervals(root, dtypes=DTYPES)
    for node, value in values_of(root, env).items():
        interval = found[node]
        if isinstance(value, float) and math.isnan(value):
            # float64 and float32 may differ in where a NaN first shows; at float32 it must be expected.
            assert interval.may_nan
            return
        rounded = to_float32(value) if isinstance(value, float) else value
        assert interval.lo <= rounded <= interval.hi, node


def test_comparisons_of_integers_use_their_difference() -> None:
    assert certainly(of("dist + 1 <= dist")) is False
    assert certainly(of("q // 2 + k < q // 2 + k + 1")) is True


def _doubling(op: Op, n: int) -> Expr:
    node = param("n", Type.INT)
    for _ in range(n):
        node = make(Op.ADD, make(op, node, node), param("n", Type.INT))
    return node


@pytest.mark.parametrize("op", [Op.ADD, Op.MUL])
def test_an_integer_that_passes_int64_is_not_bounded(op: Op) -> None:
    root = _doubling(op, 1200)
    wide = make(Op.TO_FLOAT, root)
    found = intervals(wide, make(Op.CLAMP, root, const(0), const(8)), make(Op.MOD, root, const(8)), dtypes={})
    assert found[root] == Interval(-math.inf, math.inf)
    assert (found[wide].lo, found[wide].hi) == (-math.inf, math.inf)
    assert found[make(Op.CLAMP, root, const(0), const(8))] == Interval(0, 8)
    assert found[make(Op.MOD, root, const(8))] == Interval(0, 7)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("abs(wide[b]) < 0", None),  # the least int64 is its own absolute value
        ("-wide[b] == wide[b] + 1", None),
        ("wide[b] < wide[b] + 1", None),
        ("wide[b] * wide[b] < 0", None),
        ("wide[b] // -1 < wide[b] // -1 - 5", None),
        ("0 <= min(abs(wide[b]), 7)", None),
        ("wide[b] + wide[b] == 2 * wide[b]", True),  # both wrap alike
        ("wide[b] + wide[b] < 2 * wide[b]", False),
        ("lens[b] < lens[b] + 1", True),
        ("wide[b] // 2 < wide[b] // 2 + 1", True),
    ],
)
def test_a_comparison_of_what_may_wrap_is_open(text: str, value: bool | None) -> None:
    assert certainly(of(text)) is value


def test_an_index_chosen_by_a_comparison_that_wraps_is_not_taken_for_the_first() -> None:
    assert of("where(wide[b] < wide[b] + 1, 0, 100)") == Interval(0, 100)


def _wrapped(root: Expr, wide: int) -> dict[Expr, int]:
    """Each node as 64 bits compute it."""
    values: dict[Expr, int] = {}
    for node in postorder(root):
        if node.op is Op.LOAD:
            value = wide
        elif not node.args:
            value = 1 if node.op is Op.WORD else int(node.value or 0)
        else:
            value = int(apply(node.op, [values[a] for a in node.args]))
        values[node] = (value + 2**63) % 2**64 - 2**63
    return values


NEAR_THE_ENDS = st.sampled_from([-(2**63), -(2**63) + 1, -(2**62), -1, 0, 1, 2**62, 2**63 - 2, 2**63 - 1])
WIDE = load("wide", Type.INT, (word("b"),))


def _wide_ints(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    two = [Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX]
    tests = [Op.LT, Op.LE, Op.EQ, Op.NE]
    return st.one_of(
        st.builds(make, st.sampled_from(two), inner, inner),
        st.builds(make, st.sampled_from([Op.NEG, Op.ABS]), inner),
        st.builds(
            make, st.sampled_from([Op.FLOORDIV, Op.MOD]), inner, st.sampled_from([const(-1), const(3)])
        ),
        st.builds(
            lambda op, x, y: make(Op.WHERE, make(op, x, y), y, x), st.sampled_from(tests), inner, inner
        ),
    )


@settings(max_examples=500, deadline=None)
@given(
    st.recursive(st.just(WIDE) | NEAR_THE_ENDS.map(const) | SMALL.map(const), _wide_ints, max_leaves=8),
    NEAR_THE_ENDS,
)
def test_every_value_that_wraps_lies_inside(root: Expr, wide: int) -> None:
    found = intervals(root, dtypes={"wide": "int64"})
    for node, value in _wrapped(root, wide).items():
        assert found[node].lo <= value <= found[node].hi, node


def test_a_float_param_may_be_anything_that_a_float_may() -> None:
    """A call may pass infinity, or what rounds to it."""
    c = param("c", Type.FLOAT)
    assert not is_finite(intervals(c, dtypes={})[c])
    product = make(Op.MUL, c, const(0.0))
    assert intervals(product, dtypes={})[product].may_nan
