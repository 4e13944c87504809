"""The printed IR says what the IR says: it builds to the same IR, in ASCII, no larger than the DAG."""

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from spec_strategies import specs

from attngen.errors import SpecErrors, SpecValueError
from attngen.ir.build import build
from attngen.ir.nodes import SCORE, AttentionIR, Op, const, first, make, word
from attngen.ir.printer import print_clauses, print_expr, print_ir
from attngen.source import Source
from attngen.syntax.docstring import decode_docstring, encode_docstring
from attngen.syntax.parse import parse


def ir_of(text: str) -> AttentionIR:
    source = Source(text)
    return build(parse(source), source)


@settings(max_examples=80, deadline=None)
@given(specs())
def test_printed_specs_build_to_the_same_ir(text: str) -> None:
    try:
        ir = ir_of(text)
    except (SpecValueError, SpecErrors) as error:
        kinds = {type(e) for e in getattr(error, "errors", [error])}
        assert kinds == {SpecValueError}, (
            error
        )  # constants without a value; every other mistake is the test's
        return
    printed = print_ir(ir)
    assert printed.isascii()
    again = ir_of(printed)
    assert again == ir
    assert print_ir(again) == print_ir(ir_of(print_ir(again)))


@settings(max_examples=150, deadline=None)
@given(st.text(st.characters(exclude_categories=["Cs", "Cc"], include_characters="\n\t"), max_size=60))
def test_docstrings_survive_printing(text: str) -> None:
    encoded = encode_docstring(text)
    assert encoded.isascii() and '"""' not in f"x{encoded}"
    assert decode_docstring(encoded) == text
    ir = ir_of(f'"""{encoded}"""\nvariant x')
    assert ir.doc == text
    assert ir_of(print_ir(ir)) == ir


@pytest.mark.parametrize("value", [1e-30, float("inf"), -float("inf"), -0.0, 0.0, -2.5, 1e38, 0.1, 3.0])
def test_float_constants_keep_every_bit(value: float) -> None:
    ir = AttentionIR("x", scale=const(1.0), score=(make(Op.MUL, SCORE, const(value)),))
    assert ir_of(print_ir(ir)) == ir  # interned constants tell -0.0 from 0.0


@pytest.mark.parametrize(
    ("text", "printed"),
    [
        (
            "score = (score + 1) * (2 - score) - (3 - score)",
            "score = (score + 1.0) * (2.0 - score) - (3.0 - score)",
        ),
        ("score = -(score ** 2) + (-score) ** 2", None),
        ("score = score - (q + k) / 2 - -3", "score = score - (q + k) / 2.0 - -3.0"),
        ("score = score * (q * k)", "score = score * (q * k)"),
        ("score = q // (k // 2)", "score = q // (k // 2)"),
        ("score = float(q) * k", "score = float(q) * k"),
        ("score = q / k", "score = q / k"),
        (
            "mask = not (causal or q > k) and (q < 1) == (k < 2)",
            "mask = not (dist >= 0 or k < q) and (q < 1) == (k < 2)",
        ),
        ("mask = (q < 3 or k < 3) and (q < 4 and k < 4)", "mask = (q < 3 or k < 3) and (q < 4 and k < 4)"),
        ("mask = 0 <= dist < 4 and q < 5", "mask = 0 <= dist < 4 and q < 5"),
        ("mask = sliding_window(128)", "mask = 0 <= dist < 128"),
    ],
)
def test_brackets_and_conversions_stand_only_where_needed(text: str, printed: str | None) -> None:
    ir = ir_of(f"variant x\n{text}")
    if printed:
        assert print_ir(ir) == f"variant x\n{printed}\n"
    assert ir_of(print_ir(ir)) == ir


def test_shared_terms_become_lets_with_the_names_of_the_spec() -> None:
    ir = ir_of(
        "variant x\nlet reached = tanh(score / 3)\nscore = reached * exp(reached)\n"
        "mask = abs(dist) * abs(dist) < abs(dist) + q"
    )
    assert print_ir(ir) == (
        "variant x\nlet reached = tanh(score / 3.0)\nscore = reached * exp(reached)\n"
        "let magnitude = abs(dist)\nmask = magnitude ** 2 < magnitude + q\n"
    )


def test_a_replaced_score_is_kept_in_a_let() -> None:
    text = "variant x\nlet raw = score\nscore = tanh(score)\nlet s = score\nscore = score + raw\n"
    text += "score = score * s + raw\n"
    ir = ir_of(text)
    printed = print_ir(ir)
    assert "let raw_score = score\n" in printed
    assert ir_of(printed) == ir


def test_clauses_print_alone_with_their_lets() -> None:
    ir = ir_of("variant x\nlet qx = q % 64\nlet kx = k % 64\nscore = score - abs(qx - kx)\nmask = qx <= kx")
    assert print_clauses(ir) == {
        "scale": "scale = 1.0 / sqrt(head_dim)",
        "score[0]": "let qx = q % 64\nlet kx = k % 64\nscore = score - abs(qx - kx)",
        "mask": "let qx = q % 64\nlet kx = k % 64\nmask = qx <= kx",
    }


def test_text_stays_small_where_the_tree_is_exponential() -> None:
    doubled = SCORE
    for i in range(200):
        doubled = make(Op.TANH, make(Op.ADD, make(Op.SIN, doubled), make(Op.MUL, doubled, const(float(i)))))
    ir = AttentionIR("x", scale=const(1.0), score=(doubled,))
    assert len(print_ir(ir)) < 30_000
    assert len(print_expr(doubled)) < 30_000
    assert ir_of(print_ir(ir)) == ir


def test_long_chains_and_deep_nests_print_and_build_again() -> None:
    total = SCORE
    nested = SCORE
    for i in range(500):
        total = make(Op.ADD, total, const(float(i)))
        nested = make(Op.EXP, make(Op.SUB, const(1.0), nested))
    for root in (total, nested):
        ir = AttentionIR("x", scale=const(1.0), score=(root,))
        assert ir_of(print_ir(ir)) == ir


def test_fresh_names_avoid_every_declared_name() -> None:
    ir = ir_of(
        "variant x\nparam magnitude: float\nconst smaller: int = 2\n"
        "score = score + abs(q) * abs(q) * magnitude + abs(q)"
    )
    printed = print_ir(ir)
    assert re.search(r"let magnitude_2 = abs\(q\)", printed)
    assert ir_of(printed) == ir


def test_an_expression_prints_on_one_line() -> None:
    near = make(Op.LT, make(Op.ABS, make(Op.SUB, word("q"), word("k"))), const(4))
    assert print_expr(near) == "abs(q - k) < 4"
    assert print_expr(make(Op.AND, near, make(Op.NOT, near))) == "abs(q - k) < 4 and not abs(q - k) < 4"


def test_a_place_that_is_searched_once_and_read_twice_gets_a_name() -> None:
    begin = first(Op.FIRST, "doc", (word("b"),), word("k_first"))
    assert print_expr(make(Op.MUL, begin, make(Op.ADD, begin, const(1)))) == (
        "first(doc[b] >= k_first) * (first(doc[b] >= k_first) + 1)"
    )
