"""Gates that float32 closes: a sigmoid rounded to 0 is no reason for an infinite score or a NaN gradient."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from ir_eval import Env, evaluate

import attngen
from attngen.ir.build import build
from attngen.ir.nodes import SCORE, Op, leaves
from attngen.source import Source
from attngen.syntax.parse import parse

GATES = torch.tensor([-200.0, -105.0, -100.0, -90.0, -89.0, -88.0, -3.0, 0.0, 3.0, 95.0])
SCORES = {
    "log": "score + log(sigmoid(gate[k]))",
    "softplus": "score - softplus(-gate[k])",
    "root": "score * sigmoid(gate[k]) ** 0.5",
    "reciprocal root": "score * max(sigmoid(gate[k]), 0.25) ** -0.5",
}


@pytest.mark.parametrize("score", list(SCORES.values()), ids=list(SCORES))
@pytest.mark.parametrize("gates", [GATES, torch.full_like(GATES, -100.0)], ids=["all", "closed"])
def test_a_closed_gate_agrees_with_the_reference(score: str, gates: torch.Tensor) -> None:
    variant = attngen.compile(f"variant gated\ninput gate: float32[k_len] grad\nscore = {score}\n")
    torch.manual_seed(0)
    q, k, v, seed = (torch.randn(1, 1, len(gates), 16) for _ in range(4))
    found = []
    for call in (variant, variant.reference):
        tensors = [x.clone().requires_grad_() for x in (q, k, v, gates)]
        out, lse = call(*tensors[:3], gate=tensors[3], return_lse=True)
        found.append((out, lse, *torch.autograd.grad((out * seed.to(out.dtype)).sum(), tensors)))
    for got, expected in zip(*found, strict=True):
        torch.testing.assert_close(got.double(), expected.double(), rtol=2e-4, atol=2e-5)


def score_of(text: str):
    source = Source(f"variant v\nscore = {text}\n")
    return build(parse(source), source).final_score


@given(st.floats(-700, 700))
def test_the_logarithm_of_a_sigmoid_is_spelled_in_its_stable_form(x: float) -> None:
    stable = score_of("log(sigmoid(score))")
    assert not list(leaves(stable, op=Op.SIGMOID)) and list(leaves(stable, op=Op.SCORE)) == [SCORE]
    expected = -math.log1p(math.exp(-x)) if x > -30 else x
    assert math.isclose(float(evaluate(stable, Env(score=x))), expected, rel_tol=1e-9, abs_tol=1e-12)


@pytest.mark.parametrize(("x", "expected"), [(-math.inf, -math.inf), (math.inf, 0.0), (0.0, -math.log(2.0))])
def test_and_holds_at_the_ends(x: float, expected: float) -> None:
    assert evaluate(score_of("log(sigmoid(score))"), Env(score=x)) == expected
    assert math.isnan(float(evaluate(score_of("log(sigmoid(score))"), Env(score=math.nan))))
