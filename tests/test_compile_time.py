"""A spec within the language's bounds compiles in time about linear in its length, whatever it shares."""

from __future__ import annotations

import time

import pytest

from attngen.analysis.interval import intervals
from attngen.errors import SpecLimitError
from attngen.ir.build import build
from attngen.ir.nodes import postorder
from attngen.ir.verify import MAX_NODES
from attngen.pipeline import compile_spec
from attngen.plan.plan import Options, make_plan
from attngen.source import Source
from attngen.syntax.parse import parse

HEAD = "variant v\nparam p: int\nparam a: float\n"
SECONDS = (
    30.0  # of one core; each takes 1 to 9, and what these specs once took was 40 and more, or all memory
)


def _chain(start: str, step: str, n: int, end: str) -> str:
    """``n`` lets, each made of the one before: X is that one, I its number."""
    lets = [f"let x0 = {start}"]
    lets += [f"let x{i + 1} = {step.replace('X', f'x{i}').replace('I', str(i))}" for i in range(n)]
    return HEAD + "\n".join([*lets, end.replace("LAST", f"x{n}")]) + "\n"


def _scores(step: str, n: int, head: str = HEAD) -> str:
    return head + "".join(f"score = {step.replace('I', str(i))}\n" for i in range(n))


GROWN = (
    HEAD
    + "def f(s, t) = tanh(s * a - t) * exp(-s) + sigmoid(s * s) + cos(t * s)\n"
    + "def g(s) = f(f(s, 1.5), 2.5)\n"
)
SPECS = {
    "300 scores": _scores("where(q % (I + 2) == 0, exp(score) * a + I.0, score)", 300),
    "1600 scores": _scores("score * a", 1600),
    "scores of loads": _scores(
        "score + t[h, (k + I) % 4096]", 500, "variant v\ninput t: float32[heads, 4096]\n"
    ),
    "nodes at the bound": _scores("g(score)", 190, GROWN),
    "nested extremes": _scores("max(score * a, exp(score) * I.5)", 500),
    "1950 lets": _chain("float(dist)", "X", 1950, "score = score + LAST"),
    "1100 products": _chain("float(dist)", "X * a", 1100, "score = score + LAST"),
    "squares of ints": _chain("p", "X * X + p", 700, "score = score + float(LAST)\nmask = k < LAST"),
    "doubled ints": _chain("k", "X + X", 1200, "mask = LAST > p\nscore = score + float(LAST)"),
    "a long sum": _chain("k", "X + q // (I + 2)", 700, "mask = LAST > 0"),
    "many comparisons": _chain(
        "dist", "max(X, p * I)", 400, "mask = " + " and ".join(f"LAST < {i}" for i in range(1000))
    ),
    "a tower of conditions": _chain("causal", "not (X and k < (I + 2) * h)", 500, "mask = LAST"),
    "shared sums": (
        HEAD
        + "".join(f"let a{i} = q // {i + 3} + {i + 2}\n" for i in range(60))
        + "def d(x, y) = float((x - y) * (x + y) * min(x, y))\nscore = score"
        + "".join(f" + d(a{i}, a{(i * 7 + j) % 60})" for j in range(1, 15) for i in range(40))
        + "\n"
    ),
    "a chain of loads": "input t: int32[kv_heads]\n".join(
        _chain("h_kv", "t[X]", 1100, "mask = k < LAST").split("param p: int\n")
    ),
}


@pytest.mark.parametrize("text", SPECS.values(), ids=SPECS)
def test_a_large_spec_compiles_in_seconds(text: str) -> None:
    start = time.process_time()
    compile_spec(Source(text))
    assert time.process_time() - start < SECONDS


def test_one_of_them_is_near_the_bound_of_nodes() -> None:
    source = Source(SPECS["nodes at the bound"])
    assert 0.9 * MAX_NODES < len(postorder(*build(parse(source), source).clauses)) <= MAX_NODES


def test_the_line_that_passes_the_bound_of_nodes_is_named() -> None:
    source = Source(_scores("g(score)", 300, GROWN))
    with pytest.raises(SpecLimitError) as caught:
        build(parse(source), source)
    kept = "".join(source.text.splitlines(keepends=True)[: caught.value.line - 1])
    ir = build(parse(Source(kept)), Source(kept))
    assert len(postorder(*ir.clauses)) <= MAX_NODES < len(postorder(*ir.clauses)) + 50


def test_a_scale_beyond_int64_is_not_for_the_launcher() -> None:
    """Python's integers would double in length at each product."""
    source = Source(_chain("head_dim", "X * X", 100, "scale = 1.0 / float(LAST)"))
    ir = build(parse(source), source)
    assert not make_plan(ir, Options()).scale_on_host
    assert len(intervals(ir.scale, dtypes={})) > 100
