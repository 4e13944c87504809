"""Lints: each fires on the mistake it is for, at its line, and is silent on specs that mean what they say."""

from __future__ import annotations

import pytest

from attngen.analysis.lint import LINTS, lint
from attngen.ir.build import build
from attngen.resources import zoo_dir
from attngen.source import Source
from attngen.syntax.parse import parse


def codes(text: str) -> list[str]:
    return [one.code for one in lints(text)]


def lints(text: str) -> list:
    source = Source(text)
    return lint(build(parse(source), source))


@pytest.mark.parametrize(
    "mask",
    [
        "False",
        "0 <= dist < 0",
        "sliding_window(-3)",
        "dist < 0 and dist > 0",
        "k < 0",
        "k >= k_len and causal",
        "causal and k > pos",
        "q < 0 or causal and dist < 0",
    ],
)
def test_a_mask_that_is_never_true(mask: str) -> None:
    assert "empty-rows" in codes(f"variant v\nmask = {mask}\n")


@pytest.mark.parametrize(
    "mask",
    [
        "True",
        "causal",
        "sliding_window(1)",
        "dist == 0",
        "dist < 0",
        "k < 1",
        "causal and q % 2 == 0",
        "k > pos",
    ],
)
def test_a_mask_that_some_row_passes(mask: str) -> None:
    assert "empty-rows" not in codes(f"variant v\nmask = {mask}\n")


@pytest.mark.parametrize(
    "mask",
    ["causal or dist < -8", "causal or k < 4", "causal or k % 64 == 0", "causal if h % 2 == 0 else True"],
)
def test_future_keys_under_a_mask_that_is_causal_in_part(mask: str) -> None:
    assert codes(f"variant v\nmask = {mask}\n") == ["future-keys"]


@pytest.mark.parametrize(
    "mask",
    [
        "causal",
        "k <= pos and (dist < 9 or k < 4)",
        "abs(dist) < 8",
        "not causal",
        "True",
        "sliding_window(64) or (causal and k < 4)",
        "causal and q % 3 == k % 3",
        "dist > 0 or dist == 0",
        "causal if h % 2 == 0 else sliding_window(64)",
    ],
)
def test_no_future_keys(mask: str) -> None:
    assert codes(f"variant v\nmask = {mask}\n") == []


@pytest.mark.parametrize(
    ("dim", "index", "code"),
    [
        ("kv_heads", "h", "wrong-heads"),
        ("heads", "h_kv", "wrong-heads"),
        ("k_len", "q", "wrong-length"),
        ("k_len", "q // 2", "wrong-length"),
        ("q_len", "k", "wrong-length"),
        ("q_len", "pos", "wrong-length"),
        ("kv_heads", "h_kv", None),
        ("heads", "h", None),
        ("k_len", "k", None),
        ("k_len", "pos", None),
        ("q_len", "q", None),
        ("k_len", "q + k_len - q_len", None),
        ("kv_heads", "h // (heads // kv_heads) + h_kv", None),
        ("rows", "q", None),
        ("64", "q", None),
    ],
)
def test_an_index_of_another_dimension(dim: str, index: str, code: str | None) -> None:
    text = f"variant v\ninput a: float32[{dim}]\n\nscore = score + a[{index}]\n"
    assert codes(text) == ([code] if code else [])


def test_a_standard_word_redefined() -> None:
    assert codes("variant v\nlet causal = dist > 0\nmask = causal\n") == ["shadowed-name"]


@pytest.mark.parametrize(
    ("declared", "used", "count"),
    [
        ("param cap: float = 1.0", "score", 1),
        ("param cap: float = 1.0", "score * cap", 0),
        ("input a: float32[heads]", "score", 1),
        ("input a: float32[heads]", "score + a[h]", 0),
        ("input a: float32[reach]", "score * float(reach)", 0),
    ],
)
def test_a_name_that_no_clause_reads(declared: str, used: str, count: int) -> None:
    assert codes(f"variant v\n{declared}\nscore = {used}\n") == ["unused-name"] * count


@pytest.mark.parametrize(
    ("score", "fires"),
    [
        ("exp(score)", True),
        ("score + exp(2.0 * abs(score))", True),
        ("exp(-abs(score))", False),
        ("exp(min(score, 80.0))", False),
        ("softcap(score, 30.0)", False),
        ("softplus(score)", False),
        ("score * exp(-float(abs(dist)))", False),
    ],
)
def test_an_exp_that_may_overflow(score: str, fires: bool) -> None:
    assert codes(f"variant v\nscore = {score}\n") == (["unbounded-exp"] if fires else [])


def test_a_lint_names_its_line() -> None:
    (found,) = lints("variant v\nparam cap: float = 1.0\nmask = causal\n")
    assert str(found) == "2:1: warning: no clause reads param 'cap' [unused-name]"


def test_several_come_in_the_order_of_lines() -> None:
    found = lints("variant v\nparam cap: float = 1.0\nscore = exp(score)\nmask = False\n")
    assert [one.code for one in found] == ["unused-name", "unbounded-exp", "empty-rows"]


# The prefix of a prefix LM is seen by queries before it: that is its meaning, and what the lint is for.
MEANT = {"prefix_lm": ["future-keys"]}


@pytest.mark.parametrize("path", sorted(zoo_dir().glob("*.attn")), ids=lambda path: path.stem)
def test_the_zoo_is_clean(path) -> None:
    assert codes(path.read_text(encoding="utf-8")) == MEANT.get(path.stem, [])


def test_every_lint_has_an_example() -> None:
    assert all(check.__doc__ for check in LINTS)


def test_an_exp_is_blamed_on_the_line_that_adds_it() -> None:
    found = lints("variant v\nscore = score * 2.0\nscore = exp(score)\nscore = score - 1.0\n")
    assert [(one.code, one.span.line) for one in found] == [("unbounded-exp", 3)]
