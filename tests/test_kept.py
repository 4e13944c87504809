"""The scores where the mask keeps them: equal there, and no abs of what the mask says is not negative."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate

from attngen.analysis.simplify import simplify_ir
from attngen.ir.nodes import AttentionIR, Op, postorder
from attngen.pipeline import check_spec
from attngen.plan.base2 import base2
from attngen.plan.kept import where_kept
from attngen.plan.sides import sides_apart
from attngen.source import Source

CASES = [
    ("score - 0.5 * abs(dist)", "causal", True),
    ("score - 0.5 * abs(k - pos)", "causal", True),
    ("score - 0.25 * abs(dist)", "dist <= 0", True),
    ("score * 2 + 0.5 * abs(dist)", "sliding_window(8)", True),
    ("score - 0.5 * abs(dist)", "abs(dist) <= 9", False),
    ("score - 0.5 * abs(dist)", "dist >= 0 or k < 4", False),
    ("score - log(1.0 + abs(dist))", "causal", False),  # of a negative distance, the logarithm is NaN
    ("score + 0.5 * float(abs(q - k) % 8)", "causal", False),
]


def ir_of(score: str, mask: str) -> AttentionIR:
    return simplify_ir(check_spec(Source(f"variant x\nscore = {score}\nmask = {mask}")).ir)


@pytest.mark.parametrize(("score", "mask", "gone"), CASES)
def test_an_abs_goes_where_the_mask_orders_the_positions_and_nothing_else_reads_it(
    score: str, mask: str, gone: bool
) -> None:
    ir = ir_of(score, mask)
    logits = base2(ir)
    new = where_kept(logits, sides_apart(ir))
    assert any(node.op is Op.ABS for node in postorder(logits.tile))
    assert any(node.op is Op.ABS for node in postorder(new.tile)) != gone


def test_an_index_keeps_its_abs() -> None:
    text = "variant x\ninput table: float32[heads, 9]\nmask = causal\n"
    text += "score = score + table[h, min(abs(dist), 8)]"
    ir = simplify_ir(check_spec(Source(text)).ir)
    logits = base2(ir)
    assert where_kept(logits, sides_apart(ir)).tile is logits.tile


@settings(deadline=None, max_examples=100)
@given(
    case=st.sampled_from(CASES),
    q=st.integers(0, 40),
    k=st.integers(0, 40),
    more=st.integers(-20, 20),
    dot=st.floats(-8, 8, width=32),
)
def test_what_the_mask_keeps_has_the_same_score(
    case: tuple[str, str, bool], q: int, k: int, more: int, dot: float
) -> None:
    ir = ir_of(*case[:2])
    words = {"q": q, "k": k, "pos": q + more, "q_len": 41, "k_len": 41 + more}
    env = Env(words=words, params={"scale": 0.125}, score=dot)
    logits, keep = base2(ir), sides_apart(ir)
    if evaluate(keep, env):
        assert evaluate(where_kept(logits, keep).tile, env) == evaluate(logits.tile, env)
