"""The mask as the kernels compute it: equal to the spec's, each side of a comparison at its own rate."""

from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate

from attngen.analysis.rates import Rate, rates
from attngen.analysis.simplify import simplify_ir
from attngen.ir.nodes import AttentionIR, Expr, Op, const, make, postorder, word
from attngen.ir.types import Scalar
from attngen.pipeline import check_spec
from attngen.plan.sides import keeps_keys_alone, sides_apart
from attngen.source import Source


@cache
def ir_of(mask: str) -> AttentionIR:
    return simplify_ir(check_spec(Source(f"variant x\nmask = {mask}")).ir)


def value_of(root: Expr, words: dict[str, int]) -> Scalar:
    return evaluate(root, Env(words=words))


number = st.integers(-70, 70)
gap = st.sampled_from(["pos - k", "k - pos", "q - k", "k - q", "2 * q - k", "q - 3 * k"])
comparison = st.builds("{} {} {}".format, gap, st.sampled_from(["<", "<=", ">", ">="]), number) | st.builds(
    "{} {} {}".format, number, st.sampled_from(["<", "<=", ">", ">="]), gap
)
masks = st.recursive(
    comparison,
    lambda m: (
        st.builds("({} and {})".format, m, m)
        | st.builds("({} or {})".format, m, m)
        | st.builds("(not {})".format, m)
    ),
    max_leaves=4,
)


@settings(deadline=None, max_examples=40)
@given(mask=masks, q_len=st.integers(1, 60), k_len=st.integers(1, 60), data=st.data())
def test_the_mask_with_its_sides_apart_keeps_the_same_scores(
    mask: str, q_len: int, k_len: int, data: st.DataObject
) -> None:
    ir = ir_of(mask)
    keep = sides_apart(ir)
    for _ in range(10):
        q, k = data.draw(st.integers(0, q_len - 1)), data.draw(st.integers(0, k_len - 1))
        words = {"q": q, "k": k, "pos": q + k_len - q_len, "q_len": q_len, "k_len": k_len}
        assert value_of(keep, words) == value_of(ir.mask, words)


@settings(deadline=None, max_examples=40)
@given(mask=masks, q_len=st.integers(1, 40), k_len=st.integers(1, 40), beyond=st.integers(0, 300))
def test_where_the_mask_is_said_to_end_the_keys_no_row_keeps_one_beyond_them(
    mask: str, q_len: int, k_len: int, beyond: int
) -> None:
    ir = ir_of(f"k <= pos and {mask}") if beyond % 2 else ir_of(mask)
    keep = sides_apart(ir)
    if not keeps_keys_alone(ir, keep):
        return
    for q in range(q_len):
        words = {"q": q, "k": k_len + beyond, "pos": q + k_len - q_len, "q_len": q_len, "k_len": k_len}
        assert not value_of(keep, words)


@pytest.mark.parametrize(
    ("mask", "ends"),
    [
        ("causal", True),
        ("sliding_window(8)", True),
        ("k < pos + 1", True),
        ("k <= pos + 1", False),
        ("k <= q", False),  # q_len may pass k_len
        ("causal or k < 5", False),
        ("abs(dist) < 9", False),
    ],
)
def test_a_mask_that_ends_at_its_own_position_ends_the_keys(mask: str, ends: bool) -> None:
    ir = ir_of(mask)
    assert keeps_keys_alone(ir, sides_apart(ir)) == ends


def test_no_comparison_of_a_window_takes_a_difference_for_every_score() -> None:
    keep = sides_apart(ir_of("sliding_window(1024)"))
    assert not [n for n, rate in rates(keep).items() if rate is Rate.TILE and n.op is Op.SUB]
    pos, k = word("pos"), word("k")
    assert make(Op.LT, make(Op.SUB, pos, const(1024)), k) in postorder(keep)


def test_a_window_that_may_pass_32_bits_stays_as_it_is() -> None:
    ir = simplify_ir(check_spec(Source("variant x\nparam window: int\nmask = dist < window")).ir)
    assert sides_apart(ir) is ir.mask
