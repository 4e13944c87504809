"""docs/language.md against the compiler: each table is complete, each example runs, each rule is enforced."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest
import torch

import attngen
from attngen import errors
from attngen.analysis.lint import LINTS, lint
from attngen.bench.inputs import plausible_inputs, plausible_params
from attngen.errors import AttnGenError, SpecNameError, SpecTypeError, SpecValueError
from attngen.ir.build import MAX_STEPS, build, prelude
from attngen.ir.nodes import AttentionIR
from attngen.ir.operators import BUILTINS
from attngen.ir.scope import CALL_NAMES, LOAD_NAMES, WORDS
from attngen.ir.types import DTYPES, Type
from attngen.ir.verify import MAX_NODES
from attngen.source import Source
from attngen.syntax.ast import MAX_DEPTH
from attngen.syntax.parse import CLAUSES, MAX_BYTES, MAX_NAME, MAX_TOKENS, STATEMENTS, parse
from attngen.testing import assert_matches_reference

pytestmark = pytest.mark.usefixtures("one_thread")

PAGE = (Path(__file__).parent.parent / "docs" / "language.md").read_text("utf-8")
EXAMPLES = re.findall(r"^```attn\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def table(heading: str) -> list[tuple[str, ...]]:
    """The rows of the table that a line ``| heading |`` begins, split into cells."""
    lines = iter(PAGE.splitlines())
    for line in lines:
        if line.startswith(f"| {heading} |"):
            break
    next(lines)
    rows = []
    for line in lines:
        if not line.startswith("|"):
            break
        rows.append(tuple(cell.strip() for cell in line.strip("|").split(" | ")))
    return rows


def quoted(cells: Any) -> list[str]:
    return [word for cell in cells for word in re.findall(r"`([^`]*)`", cell)]


def ir_of(text: str) -> AttentionIR:
    source = Source("variant x\n" + text, "x.attn")
    return build(parse(source), source)


# ---- The examples -----------------------------------------------------------------------------------------


def test_there_are_many_examples_and_all_are_tested() -> None:
    assert len(EXAMPLES) >= 12
    shown = PAGE.count("```text\n")  # what a command prints
    assert PAGE.count("```") == 2 * (len(EXAMPLES) + shown)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda t: re.search(r"variant (\w+)", t)[1])
def test_each_example_is_built_and_its_kernels_are_the_references(text: str) -> None:
    variant = attngen.compile(text)
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, 9, 16, generator=generator)
    k, v = torch.randn(2, 1, 1, 11, 16, generator=generator)
    given: dict[str, Any] = {**plausible_inputs(variant.ir, q, k, v), **plausible_params(variant.ir)}
    assert_matches_reference(variant, q, k, v, seed=3, **given)


def test_the_example_of_an_error_is_the_error() -> None:
    shown = re.sub(r"^```.*?^```$", "", PAGE.split("## Errors")[1], flags=re.MULTILINE | re.DOTALL)
    expected = "\n".join(line[4:] for line in shown.splitlines() if line.startswith("    "))
    source = Source(EXAMPLES[0].replace("softcap(", "sofcap("), "gemma2.attn")
    with pytest.raises(SpecNameError) as raised:
        build(parse(source), source)
    assert str(raised.value) == expected


# ---- The tables -------------------------------------------------------------------------------------------


def test_the_words_are_all_there_and_all_ints_but_the_score_and_the_weight() -> None:
    rows = [row for row in table("word") if row[0] != "`full`"]
    assert set(quoted(row[0] for row in rows)) == set(WORDS)
    assert {word for word, expr in WORDS.items() if expr.type is not Type.INT} == {"score", "weight"}


def test_the_preludes_words_are_all_there() -> None:
    after = PAGE.split("## The prelude")[1].split("\n## ")[0]
    named = {word.partition("(")[0] for word in re.findall(r"`([^`\s]+?(?:\([^`]*\))?)`", after)}
    assert set(prelude()) <= named
    for signature in re.findall(r"^\| (.*?) \|", after, re.MULTILINE)[1:]:
        for word in quoted([signature]):
            name, _, arguments = word.partition("(")
            definition = getattr(prelude()[name], "definition", None)
            assert (definition is None) == (not arguments)
            if definition is not None:
                assert [p.text for p in definition.params] == arguments.rstrip(")").split(", ")


def test_the_statements_and_clauses_are_all_there() -> None:
    begin = {word.split()[0] for row in table("statement") for word in quoted(row[:1])}
    assert begin >= set(STATEMENTS) | set(CLAUSES)
    clauses = {word for row in table("clause") for word in quoted(row[:1])}
    assert clauses == set(CLAUSES)


def test_the_functions_are_all_there() -> None:
    forms = " ".join(quoted(row[0] for row in table("form")))
    assert set(BUILTINS) <= set(re.findall(r"\w+", forms))


def test_the_dtypes_are_all_there() -> None:
    sentence = PAGE.split("Dtypes are")[1].split(".")[0]
    assert set(re.findall(r"\b[a-z]+\d*\b", sentence)) >= set(DTYPES)


def test_the_errors_are_all_there() -> None:
    classes = {
        c.__name__ for _, c in inspect.getmembers(errors, inspect.isclass) if c.__base__ is AttnGenError
    }
    # Nothing raises the one about resources: the modelling of them is to come.
    assert {row[0].strip("`") for row in table("class")} == classes - {"ResourceError"}


def test_the_bounds_are_the_compilers() -> None:
    bounds = " ".join(PAGE.split("The bounds:")[1].split())
    assert bounds.startswith(
        f"{MAX_BYTES // 1024} KiB, {MAX_TOKENS:,} tokens, names of {MAX_NAME} characters, depth {MAX_DEPTH} "
    )
    assert f"{MAX_NODES:,} nodes and {MAX_STEPS:,} steps of inlining" in bounds


WARNED = {
    "empty-rows": "mask = 0 <= dist < 0",
    "blind-rows": "mask = dist > 0",
    "future-keys": "mask = causal or dist < -8",
    "redundant-mask": "mask = causal and dist > -5",
    "dead-clause": "mask = causal or dist > 0 and dist < 0",
    "wrong-batch": "input table: float32[batch]\nscore = score + table[h]",
    "wrong-heads": "input table: float32[kv_heads]\nscore = score + table[h]",
    "wrong-length": "input table: float32[k_len]\nscore = score + table[q]",
    "free-size": "input table: float32[head]\nscore = score + table[h]",
    "clamped-index": "input table: float32[32]\nmask = 0 <= dist <= 32\nscore = score + table[dist]",
    "shadowed-name": "let full = dist < 8\nmask = full",
    "unused-name": "param c: float",
    "dead-gradient": "input keep: float32[k_len] grad\nmask = keep[k] > 0.0",
    "masking-score": "score = where(causal, score, -inf)",
    "zero-scale": "scale = 0.0",
    "unbounded-exp": "score = exp(score)",
    "unbounded-product": "score = score * score",
    "zero-divisor": "score = score / dist",
}


def test_the_warnings_are_all_there() -> None:
    codes = [row[0].strip("`") for row in table("warning")]
    assert codes == list(WARNED)
    sources = "".join(inspect.getsource(module) for module in dict.fromkeys(map(inspect.getmodule, LINTS)))
    assert set(codes) == set(re.findall(r'"([a-z]+-[a-z]+)"', sources))


@pytest.mark.parametrize("code", WARNED)
def test_a_warning_comes_with_its_example(code: str) -> None:
    assert [one.code for one in lint(ir_of(WARNED[code]))] == [code]


# ---- The rules --------------------------------------------------------------------------------------------


def test_the_names_of_the_call_are_those_that_inputs_and_params_cannot_have() -> None:
    (listed,) = re.findall(r"`(q k v seed [\w ]+)`", PAGE)
    assert set(listed.split()) == CALL_NAMES
    for name in CALL_NAMES:
        for declared in (f"param {name}: float", f"input {name}: float32[]"):
            with pytest.raises(SpecNameError):
                ir_of(declared)
    signature = inspect.signature(attngen.load).parameters.values()
    assert {p.name for p in signature if p.kind is p.KEYWORD_ONLY} == LOAD_NAMES
    for name in LOAD_NAMES:
        with pytest.raises(SpecNameError):
            ir_of(f"const {name}: int = 1")


@pytest.mark.parametrize("name", ["dist", "where", "score", "variant", "lambda", "__x"])
def test_some_names_are_taken(name: str) -> None:
    with pytest.raises(AttnGenError):
        ir_of(f"const {name}: int = 1")


@pytest.mark.parametrize(
    "clause",
    [
        "scale = 1.0",
        "mask = causal",
        "normalize = softmax",
        "weight = weight * 0.5",
        "sink = 0.0",
        "dropout = 0.1",
    ],
)
def test_all_clauses_but_the_score_stand_once(clause: str) -> None:
    ir_of("score = score * 2\nscore = score + 1\n" + clause)
    with pytest.raises(SpecNameError, match="already stands"):
        ir_of(f"{clause}\n{clause}")


# What a clause is given, and which clauses may use it; a bool for the mask.
EVERY = set(CLAUSES)
USES = {
    "score": {"score"},
    "weight": {"weight"},
    "q": {"score", "mask", "weight"},
    "k": {"score", "mask", "weight"},
    "pos": {"score", "mask", "weight"},
    "dist": {"score", "mask", "weight"},
    "b": {"score", "mask", "weight"},
    "h": {"score", "mask", "weight"},
    "head_dim": EVERY,
    "k_len": EVERY,
    "c": EVERY,
    "p": EVERY,
    "x[b, h]": EVERY - {"dropout"},
    "y[q]": {"score", "mask", "weight"},
    "y[k]": {"score", "mask", "weight"},
    "dot(z[b, h, q], w[k])": {"score"},
}


@pytest.mark.parametrize("used", USES)
def test_a_clause_may_use_what_the_table_says(used: str) -> None:
    declared = "const c: float = 0.5\nparam p: float\ninput x: float32[batch, heads]\ninput y: float32[9]\n"
    declared += "input z: float32[batch, heads, q_len, 8]\ninput w: float32[k_len, 8]\n"
    for clause in CLAUSES:
        value = {"mask": f"{used} > 0.0", "normalize": f"sigmoid({used})"}.get(clause, used)
        text = f"{declared}{clause} = {value}"
        if clause in USES[used]:
            ir_of(text)
        else:
            name = "bias of the sigmoid" if clause == "normalize" else clause
            with pytest.raises(SpecNameError, match=f"the {name} (cannot use|uses)"):
                ir_of(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("score = score + (q < k)", SpecTypeError),  # a bool never becomes a number
        ("mask = dist", SpecTypeError),
        ("mask = not dist", SpecTypeError),
        ("let near = dist\ndef f() = near\nscore = score + f()", SpecNameError),  # no def sees a let
        ("def f(x) = f(x)", SpecNameError),
        ("score = score + c\nconst c: float = 1.0", SpecNameError),
        ("param p: float\nconst c: float = p", SpecTypeError),
        ("score = score + q // 0", SpecValueError),
        ("score = score ** 17", SpecTypeError),
        ("normalize = softmax2", SpecNameError),
        ("normalize = sigmoid", SpecNameError),
        ("normalize = relu\nsink = 0.0", SpecNameError),
        ("normalize = sigmoid(0.0)\nsink = 0.0", SpecNameError),
        ("let w = weight\nscore = score + w", SpecNameError),
        ("score = score + float(q ** -1)", SpecTypeError),
        ("const c: float = 1e39", SpecValueError),
        ("dropout = 1.5", SpecValueError),
        ("input x: int32[batch] grad", SpecTypeError),
        ("input x: float32[batch] sorted", SpecTypeError),
        ("input x: float32[heads]\nscore = score + x[0.5]", SpecTypeError),
        ("input x: float32[heads]\nscore = score + x[b, h]", SpecTypeError),
    ],
)
def test_what_the_page_excludes_is_refused(text: str, kind: type[AttnGenError]) -> None:
    with pytest.raises(kind):
        ir_of(text)


def score_of(line: str, **given: Any) -> torch.Tensor:
    """The log-sum-exp of one query and one key whose dot product is 0: the score itself."""
    zero = torch.zeros(1, 1, 1, 16)
    out = attngen.compile(f"variant x\n{line}").reference(zero, zero, zero, return_lse=True, **given)
    lse: torch.Tensor = out[1]
    return lse.flatten()[0]


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ("-x ** 2", -9.0),
        ("float(not x == 4)", 1.0),  # and not (not x) == 4
        ("float(0 <= x < 3)", 0.0),
        ("float(0 <= x <= 3)", 1.0),
        ("7 / 2 * x", 10.5),
        ("-7 // 2 + x", -1.0),
        ("-7 % 4 + x", 4.0),
        ("(0 - x) // 2.0", -2.0),
        ("int(-2.7 + x - 3)", -2.0),
        ("floor(x - 5.5)", -3.0),
        ("x ** 0.5 * x ** 0.5", 3.0),
        ("1_000 + 1e-3 + x", 1003.001),
        ("min(x, 5, 4) + max(1, 2, x)", 6.0),
        ("clamp(x, 0, 2)", 2.0),
        ("(1 if x > 2 else 5) + where(x > 2, 10, 20)", 11.0),
    ],
)
def test_expressions_are_pythons(expression: str, value: float) -> None:
    line = f"param x: float\nscore = score + ({expression})"
    assert score_of(line, x=3.0).item() == pytest.approx(value, rel=1e-6)


def test_dividing_an_int_by_zero_is_caught_when_it_can_be() -> None:
    by_param = attngen.compile("variant x\nparam n: int\nscore = score + q // n")
    zero = torch.zeros(1, 1, 2, 16)
    with pytest.raises(ValueError, match="is 0"):
        by_param(zero, zero, zero, n=0)
    data = torch.zeros(1, dtype=torch.int32)
    assert score_of("input d: int32[1]\nscore = score + 7 // d[0] + 7 % d[0]", d=data).item() == 0.0


def test_int_stays_within_int32_and_nan_is_0() -> None:
    line = "input x: float32[]\nscore = score + int(x)"
    for x, expected in ((1e30, 2**31 - 1), (-1e30, -(2**31)), (float("nan"), 0)):
        assert score_of(line, x=torch.tensor(x)).item() == expected


def test_what_is_sorted_is_searched() -> None:
    text = "variant docs\ninput doc: int32[batch, k_len]{}\nmask = causal and doc[b, pos] == doc[b, k]"
    promised, plain = (attngen.compile(text.format(flag)).source for flag in (" sorted", ""))
    assert "doc_begins = search(" in promised
    assert "search(" not in plain
    assert "searches the table" in " ".join(PAGE.split())
