"""Lints: each fires on the mistake it is for, at its line, and is silent on specs that mean what they say."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from spec_strategies import DECLARATIONS, expressions

from attngen.analysis.lint import LINTS, lint
from attngen.analysis.lints.masks import redundant_clauses
from attngen.errors import AttnGenError
from attngen.ir.build import build
from attngen.ir.nodes import TRUE, Op
from attngen.ir.printer import print_expr
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
    [
        "causal or dist < -8",
        "causal or dist < -4096",
        "causal or k < 4",
        "causal or k % 64 == 0",
        "causal if h % 2 == 0 else True",
    ],
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
    assert "future-keys" not in codes(f"variant v\nmask = {mask}\n")


@pytest.mark.parametrize(
    ("doc", "name", "mask", "fires"),
    [
        ("Causal attention with a window.", "v", "abs(dist) < 8", True),
        ("Attention with a window.", "causal_window", "abs(dist) < 8", True),
        ("Attention with a window.", "v", "abs(dist) < 8", False),
        ("Causal attention with a window.", "v", "0 <= dist < 8", False),
        ("Non-causal attention with a window.", "v", "abs(dist) < 8", False),
        ("A window.\n\nX 2020, Causal Things", "v", "abs(dist) < 8", False),
        ("Causal, and the first four keys are global.", "v", "causal or k < 4", False),
        ("Causal, with a mistake.", "v", "causal or k < 4", True),
    ],
)
def test_a_claim_of_causality_is_held_against_the_mask(doc: str, name: str, mask: str, fires: bool) -> None:
    found = codes(f'"""{doc}"""\nvariant {name}\nmask = {mask}\n')
    assert found == (["future-keys"] if fires else [])


def test_a_size_that_a_clause_asks_for_is_meant() -> None:
    declared = "variant v\ninput a: float32[own]\n"
    assert codes(declared + "score = score + a[h]\n") == ["free-size"]
    assert codes(declared + "score = score + (a[h] if h < own else 0.0)\n") == []


def test_what_an_input_decides_may_leak_only_where_the_mask_itself_is_causal() -> None:
    declared = '"""Causal."""\nvariant v\ninput n: int32[batch]\n'
    (found,) = lints(declared + "mask = causal or k < n[b]\n")
    assert found.code == "future-keys" and "may see the key k = 1" in found.message
    assert codes(declared + "mask = k <= n[b] + q\n") == []


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
        ("kv_heads", "h // (heads // kv_heads)", None),
        ("batch", "h", "wrong-batch"),
        ("batch", "b", None),
        ("heads", "q", "wrong-heads"),
        ("heads", "b * 2 + 1", "wrong-heads"),
        ("k_len", "b", "wrong-length"),
        ("heads", "0", None),
        ("batch", "0", "wrong-batch"),
        ("k_len", "order[q]", None),
        ("rows", "q", None),
        ("max_len", "k", None),
        ("seq_len", "k", "free-size"),
        ("kv_len", "k", "free-size"),
        ("S", "pos", "free-size"),
        ("q_length", "q", "free-size"),
        ("head", "h", "free-size"),
        ("groups", "h_kv", "free-size"),
        ("B", "b", "free-size"),
        ("kinds", "order[q]", None),
        ("buckets", "h // 2", None),
        ("64", "clamp(q, 0, 63)", None),
    ],
)
def test_an_index_of_another_dimension(dim: str, index: str, code: str | None) -> None:
    text = f"variant v\ninput order: int32[q_len]\ninput a: float32[{dim}]\nscore = score + a[{index}]\n"
    assert [one for one in codes(text) if one != "unused-name"] == ([code] if code else [])


@pytest.mark.parametrize(
    ("text", "index", "right"),
    [
        ("input len: int32[batch]\nmask = k < len[h]", "h", "len[b]"),
        ("input len: int32[batch]\nmask = k < len[0]", "0", "len[b]"),
        ("input keep: bool[batch, k_len]\nmask = keep[0, k]", "0", "keep[b, k]"),
        ("input w: float32[heads]\nscore = score + w[b]", "b", "w[h]"),
        ("input w: float32[heads]\nlet bias = 2 * w[h_kv]\nscore = score + bias", "h_kv", "w[h]"),
        ("input w: float32[heads]\nweight = weight * w[h_kv]", "h_kv", "w[h]"),
        ("input w: float32[kv_heads]\nnormalize = sigmoid(w[h])", "h", "w[h_kv]"),
        ("input t: float32[k_len, 4]\nscore = score + t[q, 1]", "q", "t[pos, 1]"),
        ("input t: float32[8, q_len]\nscore = score + t[min(k, 7), pos]", "pos", "t[min(k, 7), q]"),
        ("input w: float32[heads]\nscore = score + w[b * 2]", "b * 2", None),
        ("input t: float32[heads, 32]\nscore = score + t[q - k, h]", "q - k", "t[h, q - k]"),
        ("input t: float32[heads, batch]\nscore = score + t[b * 2, h]", "b * 2", "t[h, b * 2]"),
    ],
)
def test_a_wrong_index_is_underlined_alone_and_the_right_one_written(
    text: str, index: str, right: str | None
) -> None:
    found = lints(f"variant v\n{text}\n")[0]
    assert found.code.startswith("wrong-")
    line = text.splitlines()[found.span.line - 2]
    assert line[found.span.column - 1 : found.span.end_column - 1] == index
    assert f"runs over it: write {right}" in found.message if right else "write" not in found.message


@pytest.mark.parametrize(
    ("dim", "index", "example"),
    [
        ("heads", "q - k", "with heads = 2, at q = 0 and k = 1 it is -1, before its 2 elements"),
        ("heads", "abs(q - k)", "with heads = 2, at q = 0 and k = 2 it is 2, beyond its 2 elements"),
        ("kv_heads", "h + 1", "with kv_heads = 1, at h = 0 it is 1, beyond its one element"),
        ("q_len", "pos - 1", "with q_len = 1, k_len = 1, at q = 0 it is -1, before its one element"),
        ("k_len", "q // 2", "with q_len = 1 and k_len = 4, q = 0 stands at pos = 3"),
        ("kv_heads", "h // 2", None),
        ("heads", "q - n[b]", None),
    ],
)
def test_the_example_of_a_wrong_index_is_computed(dim: str, index: str, example: str | None) -> None:
    text = f"variant v\ninput n: int32[batch]\ninput a: float32[{dim}]\nscore = score + a[{index}]\n"
    (found,) = (one for one in lints(text) if one.code != "unused-name")
    assert found.message.endswith(f"({example})" if example else "runs over it")


@pytest.mark.parametrize(
    ("size", "mask", "index", "told"),
    [
        (32, "0 <= dist <= 32", "dist", "which is 32 at q = 32, k = 0 (q_len = 33, k_len = 33), one beyond"),
        (32, "causal", "min(dist, 32)", "which is 32 at q = 32, k = 0 (q_len = 33, k_len = 33), one beyond"),
        (
            64,
            "band(32, 31)",
            "31 - dist",
            "which is -1 at q = 32, k = 0 (q_len = 33, k_len = 33), one before",
        ),
        (32, "causal", "dist + 40", "never one of its 32 elements (0 to 31): it is 40 at q = 0, k = 0"),
        (
            32,
            "0 <= dist <= 32",
            "dist + 40",
            "never one of its 32 elements (0 to 31): it is 40 at q = 0, k = 0",
        ),
        (8, "causal", "8", "never one of its 8 elements (0 to 7): it is 8 at"),
        (8, "causal and k < n", "min(k, n) + 4", None),  # a call may give another n
        (32, "0 <= dist < 32", "dist", None),
        (32, "causal", "dist", None),  # far distances share the last element
        (32, "True", "dist + 40", None),
        (64, "band(32, 32)", "clamp(dist + 32, 0, 63)", None),
        (32, "causal", "flags[k] + 40", None),
        (1, "causal", "h", None),
    ],
)
def test_a_table_that_is_one_element_short_or_never_met(
    size: int, mask: str, index: str, told: str | None
) -> None:
    text = (
        f"variant v\nparam n: int = 4\ninput flags: int32[k_len]\ninput t: float32[{size}]\n"
        f"score = score + t[{index}]\nmask = {mask}\n"
    )
    found = [one for one in lints(text) if one.code == "clamped-index"]
    assert len(found) == (told is not None)
    assert all(told in one.message and one.span.column == len("score = score + t[") + 1 for one in found)


@pytest.mark.parametrize("score", ["where(dist < 32, t[dist], 0.0)", "t[dist] if dist < 32 else 0.0"])
def test_a_table_that_a_conditional_holds_back_is_read_inside(score: str) -> None:
    text = f"variant v\ninput t: float32[32]\nscore = score + ({score})\nmask = 0 <= dist <= 32\n"
    assert codes(text) == []


@pytest.mark.parametrize(
    ("line", "why"),
    [
        ("mask = a[k] > 0.0", "through the mask"),
        ("score = score + floor(a[k])", "through int(), floor, a comparison or an index"),
        ("score = score + t[int(a[k])]", "through int(), floor, a comparison or an index"),
        ("score = where(a[k] > 0.0, score, 2.0)", "through int(), floor, a comparison or an index"),
        ("score = score + a[k]\nmask = a[k] > 0.0", None),
        ("weight = weight * a[k]", None),
        ("sink = a[h]", None),
        ("scale = a[h]", None),
        ("normalize = sigmoid(a[h])", None),
    ],
)
def test_a_gradient_that_is_always_zero(line: str, why: str | None) -> None:
    dim = "heads" if "a[h]" in line else "k_len"
    text = f"variant v\ninput a: float32[{dim}] grad\ninput t: float32[9]\n{line}\n"
    found = [one.message for one in lints(text) if one.code == "dead-gradient"]
    assert found == (
        [f"input 'a' is read only {why}: its gradient is always 0, and 'grad' can go"] if why else []
    )


@pytest.mark.parametrize(
    ("score", "mask", "write"),
    [
        ("where(causal, score, -inf)", None, "mask = causal"),
        ("score if causal else -inf", None, "mask = causal"),
        ("score + where(dist < 8, 0.0, -inf)", "causal", "mask = ... and dist < 8"),
        ("where(k % 2 == 0 or k < 4, score, -inf)", "causal", "mask = ... and (k % 2 == 0 or k < 4)"),
        ("where(dist < 0, -inf, where(dist < 8, score, -inf))", None, "mask = causal and dist < 8"),
        ("where(causal, score, -inf)", "causal and dist < 8", None),
        ("where(score > 3.0, score, -inf)", None, None),  # which no mask can say
        ("where(score > 3.0, -inf, score)", None, None),
        ("max(where(causal, score, -inf), -3.0)", None, None),
        ("where(causal, score, -1.0)", None, None),
    ],
)
def test_a_score_that_does_the_mask_s_work(score: str, mask: str | None, write: str | None) -> None:
    text = f"variant v\nscore = {score}\n" + (f"mask = {mask}\n" if mask else "")
    found = [one.message for one in lints(text) if one.code == "masking-score"]
    assert [one.rpartition("write ")[2] for one in found] == ([write] if write else [])


@pytest.mark.parametrize(
    ("text", "fires"),
    [
        ("scale = 0.0", True),
        ("scale = 0\nscore = score + dist", True),
        ("scale = 0\nscore = -abs(dist)", False),
        ("param s: float = 0.0\nscale = s", False),
    ],
)
def test_a_scale_of_zero(text: str, fires: bool) -> None:
    assert codes(f"variant v\n{text}\n") == (["zero-scale"] if fires else [])


def test_a_standard_word_redefined() -> None:
    assert codes("variant v\nlet full = dist < 8\nmask = full\n") == ["shadowed-name"]


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


@pytest.mark.parametrize("path", sorted(zoo_dir().glob("*.attn")), ids=lambda path: path.stem)
def test_the_zoo_is_clean(path) -> None:
    assert codes(path.read_text(encoding="utf-8")) == []


def test_every_lint_has_an_example() -> None:
    assert all(check.__doc__ for check in LINTS)


def test_an_exp_is_blamed_on_the_line_that_adds_it() -> None:
    found = lints("variant v\nscore = score * 2.0\nscore = exp(score)\nscore = score - 1.0\n")
    assert [(one.code, one.span.line) for one in found] == [("unbounded-exp", 3)]


# ---- Rows and clauses --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mask", "place"),
    [
        ("dist > 0", "q = 0 sees no key (q_len = 1, k_len = 1)"),
        ("causal and q % 3 != 1", "q = 1 sees no key (q_len = 2, k_len = 2)"),
        ("not causal", "q = 0 sees no key (q_len = 1, k_len = 1)"),
        ("causal and (h == 0 or k > 0)", "q = 0 of head h = 1 sees no key (q_len = 1, k_len = 1)"),
        ("dist >= n", "q = 0 sees no key (q_len = 1, k_len = 1, n = 2)"),
        ("dist > 0 and flags[k]", "q = 0 sees no key (q_len = 1, k_len = 1)"),
    ],
)
def test_a_row_that_sees_nothing_is_shown(mask: str, place: str) -> None:
    found = lints(f"variant v\nparam n: int = 2\ninput flags: bool[k_len]\nmask = {mask}\n")
    assert [one.message for one in found if one.code == "blind-rows"] == [f"query {place}: its output is 0"]


@pytest.mark.parametrize(
    "mask",
    [
        "causal",
        "dist >= 0 and flags[k]",
        "causal and q % 3 != 3",
        "k < n",
        "pos // 8 == k // 8",
        "abs(dist) < 2",
        "causal or n < 3",
    ],
)
def test_rows_that_see_a_key_or_may_are_not_blamed(mask: str) -> None:
    assert "blind-rows" not in codes(f"variant v\nparam n: int\ninput flags: bool[k_len]\nmask = {mask}\n")


def test_a_docstring_that_speaks_of_rows_that_see_nothing_means_them() -> None:
    assert codes('"""Strictly causal: the first token sees nothing."""\nvariant v\nmask = dist > 0\n') == []


@pytest.mark.parametrize(
    ("mask", "code", "text"),
    [
        ("causal and dist > -5", "redundant-mask", "'dist > -5'"),
        ("sliding_window(8) and sliding_window(16)", "redundant-mask", "'dist < 16'"),
        ("causal and q >= 0", "redundant-mask", "'q >= 0'"),
        ("causal and k < k_len", "redundant-mask", "'k < k_len'"),
        ("sliding_window(16) or 2 <= dist < 9", "redundant-mask", "'2 <= dist < 9'"),
        ("causal and (dist < 9 or dist < 4)", "redundant-mask", "'dist < 4'"),
        ("k >= 0", "redundant-mask", "the mask keeps every key"),
        ("dist < 4 or dist >= 4", "redundant-mask", "the mask keeps every key"),
        ("causal or dist < 0 and dist > 0", "dead-clause", "'dist < 0 < dist'"),
        ("causal or k >= k_len", "dead-clause", "'k_len <= k'"),
    ],
)
def test_a_clause_that_changes_nothing(mask: str, code: str, text: str) -> None:
    (found,) = (one for one in lints(f"variant v\nmask = {mask}\n") if one.code.endswith(("mask", "clause")))
    assert found.code == code and found.message.startswith(text)


@pytest.mark.parametrize(
    "mask",
    [
        "True",
        "full",
        "causal and dist < 5",
        "causal and (dist < 9 or k < 4)",
        "chunked(8) and dilated(2)",
        "causal and sliding_window(8)",
        "causal and q >= 1",
        "causal and k < k_len - 1",
        "sliding_window(4) or dilated(4) and dist < 64",
        "causal and doc[k] == doc[pos]",
        "k < 4 or doc[k] < 4",
        "0.5 * dist < 3.0 and dist >= 0",
    ],
)
def test_a_clause_that_changes_something(mask: str) -> None:
    found = codes(f"variant v\ninput doc: int32[k_len]\nmask = {mask}\n")
    assert not {"redundant-mask", "dead-clause"} & set(found)


CALLS = [(q_len, k_len) for q_len in range(1, 6) for k_len in range(1, 6)]


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(["and", "or"]), expressions("bool", depth=2), expressions("bool", depth=1))
def test_a_clause_that_is_called_idle_never_decides(op: str, first: str, second: str) -> None:
    """Brute force: dropping the clause that the message quotes, or the whole mask, changes no score."""
    spec = DECLARATIONS + f"mask = (({first}) {op} ({second}))\n"
    try:
        ir = build(parse(Source(spec)), Source(spec))
    except AttnGenError:
        assume(False)
    for found in redundant_clauses(ir):
        parts = ir.mask.args if ir.mask.op in (Op.AND, Op.OR) else ()
        kept = [p for p in parts if f"'{print_expr(p, ir)}'" not in found.message]
        rest = TRUE if "the mask keeps" in found.message else kept[0] if len(kept) == 1 < len(parts) else None
        if rest is None:
            continue  # a clause of a clause
        for q_len, k_len in CALLS:
            for q in range(q_len):
                for k in range(k_len):
                    env = place_of(q, k, q_len, k_len)
                    assert evaluate(ir.mask, env) == evaluate(rest, env), (found.message, q, k, q_len, k_len)


def place_of(q: int, k: int, q_len: int, k_len: int) -> Env:
    words = {"b": 0, "h": 0, "batch": 1, "heads": 1, "kv_heads": 1, "head_dim": 8, "v_dim": 8}
    return Env(
        words={**words, "q": q, "k": k, "q_len": q_len, "k_len": k_len},
        params={"p": 0.75, "m": 2},
        sizes={"extra": 3},
        inputs={"t": [[0.5, -1.0, 2.0]], "doc": [sorted((3 * x) % 5 for x in range(k_len))], "flag": True},
        wraps=True,
    )


# ---- Scores ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("score", "fires"),
    [
        ("score * score", True),
        ("square(score)", True),
        ("score ** 3", True),
        ("score * relu(score + 1.0)", True),
        ("silu(score)", False),
        ("softcap(score, 5.0) * score", False),
        ("square(softcap(score, 5.0))", False),
        ("score * p", False),
    ],
)
def test_a_product_that_grows_as_a_square(score: str, fires: bool) -> None:
    assert ("unbounded-product" in codes(f"variant v\nparam p: float = 1.0\nscore = {score}\n")) is fires


@pytest.mark.parametrize(
    ("score", "mask", "where"),
    [
        ("score / dist", "True", "'float(dist)' is 0 at q = 0, k = 0 (q_len = 1, k_len = 1)"),
        ("score / dist", "dist != 0", None),
        ("score / (dist + 1)", "causal", None),
        ("score / (dist + 1)", "True", "'float(dist + 1)' is 0 at q = 0, k = 1 (q_len = 2, k_len = 2)"),
        ("score * rsqrt(k)", "True", "'float(k)' is 0 at q = 0, k = 0 (q_len = 1, k_len = 1)"),
        ("score / abs(score)", "True", "'abs(score)' is 0 where the product of q and k is"),
        ("score / (1.0 + abs(score))", "True", None),
        ("score / p", "True", None),
        ("score / t[h]", "True", None),
        ("softcap(score, p)", "True", None),
    ],
)
def test_a_divisor_that_can_be_zero(score: str, mask: str, where: str | None) -> None:
    text = f"variant v\nparam p: float = 2.0\ninput t: float32[heads]\nscore = {score}\nmask = {mask}\n"
    found = [one.message for one in lints(text) if one.code == "zero-divisor"]
    assert [message.split(":")[0] for message in found] == ([where] if where else [])


def test_a_divisor_that_the_mask_hides_is_no_matter_to_the_score() -> None:
    assert codes("variant v\nscore = score / dist\nmask = dist != 0\n") == ["blind-rows"]
