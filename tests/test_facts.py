"""What is called proven is never false (brute force over small calls), and is found where it must be."""

from __future__ import annotations

import ast
import math
import re

import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate, values_of
from kernel_calls import judge, qkv, variant_of
from spec_strategies import DECLARATIONS, expressions, specs

from attngen.analysis.facts import Facts, facts_of
from attngen.analysis.nonempty import MaybeEmpty, Nonempty, Sizes
from attngen.analysis.simplify import simplify_ir
from attngen.errors import AttnGenError
from attngen.ir.nodes import AttentionIR, Expr, Op, const, leaves, param, word
from attngen.ir.printer import print_expr
from attngen.ir.types import Type
from attngen.pipeline import check_spec, compile_spec
from attngen.resources import zoo_dir
from attngen.source import Source
from attngen.spec_file import find_spec

INF = math.inf


def ir_of(text: str) -> AttentionIR:
    return simplify_ir(check_spec(Source(text)).ir)


def facts(*lines: str) -> Facts:
    return facts_of(ir_of("\n".join(["variant v", *lines])))


def zoo_facts(name: str) -> Facts:
    return facts_of(simplify_ir(check_spec(find_spec(name)).ir))


# ---- What must be found ------------------------------------------------------------------------------------

POS, Q, FIRST = word("pos"), word("q"), const(0)
IF_ENOUGH_KEYS = Sizes.NO_FEWER_KEYS


@pytest.mark.parametrize(
    ("name", "key", "sizes"),
    [
        ("full", FIRST, Sizes.ANY),
        ("causal", POS, IF_ENOUGH_KEYS),
        ("sliding_window", POS, IF_ENOUGH_KEYS),
        ("alibi", POS, IF_ENOUGH_KEYS),
        ("softcap", POS, IF_ENOUGH_KEYS),
        ("gemma2_local", POS, IF_ENOUGH_KEYS),
        ("gpt_oss", POS, IF_ENOUGH_KEYS),
        ("prefix_lm", POS, IF_ENOUGH_KEYS),
        ("streaming_llm", POS, IF_ENOUGH_KEYS),
        ("packed_documents", POS, IF_ENOUGH_KEYS),
        ("chunked", POS, IF_ENOUGH_KEYS),
        ("dropped", POS, IF_ENOUGH_KEYS),
        ("neighbourhood_2d", Q, IF_ENOUGH_KEYS),
        ("cosine_temperature", FIRST, Sizes.ANY),
    ],
)
def test_a_key_that_every_row_keeps_is_found(name: str, key: Expr, sizes: Sizes) -> None:
    assert zoo_facts(name).nonempty == Nonempty(key, sizes)


@pytest.mark.parametrize(
    ("lines", "by_score"),
    [
        (("input n: int32[batch]", "mask = k < n[b]"), False),
        (("mask = dist > 0",), False),
        (("mask = causal and h % 2 == 0",), False),
        (("mask = causal and q % 2 == 0",), False),
        (("input t: float32[heads]", "score = score + t[h]"), True),
        (("param c: float", "score = score + c", "mask = causal"), True),
        (("input t: float32[heads]", "scale = t[h]"), True),
        (("score = score - inf",), True),
        (("score = score * 1e30",), True),
        (("score = where(causal, score, -inf)", "mask = k < 4"), True),
        (("score = log(abs(score))",), True),
        (("score = score / dist", "mask = causal"), True),
    ],
)
def test_a_row_that_may_be_empty_is_not_called_full(lines: tuple[str, ...], by_score: bool) -> None:
    assert facts(*lines).nonempty == MaybeEmpty(by_score)


def test_a_finite_sink_fills_every_row() -> None:
    assert facts("sink = 0.0", "mask = dist > 3").nonempty == Nonempty(None, Sizes.ANY)
    assert facts("input s: float32[heads]", "sink = s[h]").nonempty == Nonempty(FIRST, Sizes.SOME_KEYS)


@pytest.mark.parametrize(
    ("lines", "bound"),
    [
        (("param c: float", "score = softcap(score, c)"), "abs(c)"),
        (("score = softcap(score, 30.0) + 1.0",), "31.0"),
        (("score = sigmoid(score) * cos(score) - 2.0",), "3.0"),
        (("score = clamp(score, -4.0, 2.0)",), "4.0"),
        (("score = where(causal, tanh(score), 0.5)",), "1.0"),
        (("score = softcap(score, 30.0) + score",), None),
        (("score = softcap(score, 30.0) - 0.1 * abs(dist)",), None),
        (("score = min(score, 4.0)",), None),
        (("score = tanh(score) / 0.1",), None),
    ],
)
def test_a_bounded_score_is_known(lines: tuple[str, ...], bound: str | None) -> None:
    found = facts(*lines).bound
    assert (found and print_expr(found)) == bound


@pytest.mark.parametrize(
    ("score", "terms"),
    [
        ("score + g[h, q] - 2.0", ["g[h, q]", "2.0"]),
        ("g[h, q] - (0.5 * b - score)", ["g[h, q]", "0.5 * b"]),
        ("score - 0.5 * k", []),
        ("softcap(score + g[h, q], 9.0)", []),
        ("score * g[h, q]", []),
        ("score + g[h, k]", []),
        ("where(causal, score + g[h, q], score)", []),
    ],
)
def test_terms_that_the_softmax_does_not_feel(score: str, terms: list[str]) -> None:
    assert sorted(
        map(print_expr, facts("input g: float32[heads, q_len]", f"score = {score}").shifts)
    ) == sorted(terms)


@pytest.mark.parametrize(
    ("dims", "index", "inside"),
    [
        ("heads, 32", "h, t5_bucket(-dist, 32, 128)", True),
        ("heads, 31", "h, t5_bucket(-dist, 32, 128)", False),
        ("heads, 32", "h, t5_causal_bucket(-dist, 32, 128)", True),
        ("heads, r", "h, clamp(dist, 0, r - 1)", True),
        ("heads, r", "h, clamp(dist, 0, r)", False),
        ("heads, r", "h, clamp(dist, -1, r - 1)", False),
        ("heads, r", "h, min(abs(dist), r - 1)", True),
        ("heads, r", "h, dist % r", True),
        ("heads, r", "h, dist % (r + 1)", False),
        ("heads, r", "h, where(causal, 0, r - 1)", True),
        ("heads, r", "h, where(causal, 0, r - 2)", False),
        ("heads, 9", "h, dist if 0 <= dist else 8", False),
        ("heads, 9", "h, abs(dist) if abs(dist) < 8 else 8", True),
        ("heads, k_len", "h, k", True),
        ("heads, k_len", "h, pos", False),
        ("heads, k_len", "h, k_len - 1 - k", True),
        ("heads, k_len", "h, q", False),
        ("heads, q_len", "h, q_len - q", False),
        ("heads, 2 * 8 + 1", "h, clamp(dist, -8, 8) + 8", True),
    ],
)
def test_an_index_is_known_to_be_inside_or_not(dims: str, index: str, inside: bool) -> None:
    found = facts(f"input t: float32[{dims}]", f"score = score + t[{index}]")
    assert (1 in {fact.axis for fact in found.inside}) is inside


def text_of(*lines: str, backend: str = "triton") -> str:
    return compile_spec(Source("\n".join(["variant v", *lines])), backend=backend).text


def test_the_guard_goes_where_no_row_is_empty_and_asks_the_sizes_where_they_decide() -> None:
    never, asks, always = text_of(), text_of("mask = causal"), text_of("mask = dist > 0")
    assert "kept_any" not in never and "kept_any" not in text_of(backend="hopper")
    assert "    if q_len > k_len:\n        kept_any" in asks
    assert "\n    kept_any" in always
    sink = text_of("input s: float32[heads]", "sink = s[h]")
    assert "    if k_len == 0:\n        kept_any" in sink


SINK = ("input s: float32[heads]", "sink = s[h]")
CLIPPED = "weight = clamp(1.1 * weight - 0.02, 0.0, 1.0)"


@pytest.mark.parametrize(
    ("lines", "backend", "told"),
    [
        ((), "hopper", "Nothing guards the division by the row's sum."),
        (("sink = 0.0",), "triton", "Nothing guards the division by the row's sum."),
        (("mask = causal",), "triton", "Only otherwise is the division by the row's sum guarded."),
        (
            ("mask = causal",),
            "hopper",
            "Triton's forward guards the division by the row's sum only otherwise, Gluon's",
        ),
        (
            SINK,
            "hopper",
            "Triton's forward guards the division by the row's sum only otherwise, Gluon's always.",
        ),
        ((CLIPPED,), "triton", "The division by the row's sum is guarded all the same."),
        (("sink = 0.0", CLIPPED), "triton", "The division by the row's sum is guarded all the same."),
    ],
)
def test_the_docstring_says_which_forward_is_guarded(lines: tuple[str, ...], backend: str, told: str) -> None:
    _, doc, code = text_of(*lines, backend=backend).split('"""', 2)
    assert told in " ".join(doc.split())
    found = re.findall(r"\n( +if [qk]_len .*:\n)? +kept_any = row_sum", code)
    in_words = {
        "Nothing": [],
        "Only": ["if"],
        "Triton's": ["if", "always"],
        "The": ["always"],
    }
    assert ["if" if condition else "always" for condition in found] == in_words[told.split()[0]]


def test_the_docstring_tells_each_fact_and_its_reason() -> None:
    doc = compile_spec(find_spec("causal")).text.split('"""')[1]
    assert "If q_len <= k_len, no row is empty: the key k = pos passes the mask in every row" in " ".join(
        doc.split()
    )
    words = " ".join(compile_spec(find_spec("t5")).text.split('"""')[1].split())
    assert "Index 1 of table is 0 to 31, inside its 32 elements: no clamp." in words
    assert "A row may be empty, since table may bring -inf. It gives out = 0 and lse = -inf." in words
    assert "abs(score) <= abs(cap)" in compile_spec(find_spec("softcap")).text.split('"""')[1]
    moved = text_of("input g: float32[heads, q_len]", "score = score + g[h, q]").split('"""')[1]
    assert "The term g[h, q] of the score is one number for all keys of a row" in " ".join(moved.split())


LONG = "sqrt(1.0 + float(q)) * exp(-abs(s[h] * float(q) / 128.0 + 0.25)) * cos(float(q) / 3.0)"


@pytest.mark.parametrize(
    ("lines", "told"),
    [
        (("score = score + s[h] * " + LONG,), "A term of s, h and q of the score is one number"),
        (
            ("score = score + s[h]  + " + LONG,),
            "The terms s[h] and a longer one of s, h and q of the score are",
        ),
        (
            (
                "param c: float",
                f"score = tanh(score) * (c * c + {' + '.join(f'sin(c / {n}.5)' for n in range(9))})",
            ),
            "abs(score) is at most an expression of c.",
        ),
    ],
)
def test_of_an_expression_that_no_line_holds_the_docstring_tells_what_it_reads(
    lines: tuple[str, ...], told: str
) -> None:
    spec = "\n".join(["variant tried", "input s: float32[heads]", "mask = s[h] > 0.0", *lines])
    text = " ".join(
        (ast.get_docstring(ast.parse(compile_spec(Source(spec, "tried.attn")).text)) or "").split()
    )
    assert told in text and "..." not in text


BRINGING = {
    "an int input is never infinite": (
        ("input slopes: float32[heads]", "input start: int32[batch]"),
        "score - slopes[h] * abs(pos - start[b] - k)",
        "slopes may bring -inf",
    ),
    "nor what chooses an element or a branch": (
        ("input ids: int32[k_len]", "input t: float32[heads, 8]", "param c: float"),
        "score + (t[h, ids[k]] if dist < c else 0.0)",
        "t may bring -inf",
    ),
    "nor what is bounded": (
        ("input a: float32[heads]", "input b_: float32[heads]"),
        "score + tanh(a[h]) * b_[h]",
        "b_ may bring -inf",
    ),
    "each of two": (
        ("input a: float32[heads]", "input c: float32[heads]"),
        "score / a[h] + log(c[h])",
        "a or c may bring -inf",
    ),
    "the rows of a product": (
        ("input x: float32[batch, heads, q_len, 8]", "input y: float32[batch, k_len, 8]"),
        "score + dot(x[b, h, q], y[b, k])",
        "x or y may bring -inf",
    ),
    "a constant": (
        ("input t: float32[heads]",),
        "score + (t[h] if k > 4 else -inf)",
        "the score may be -inf",
    ),
}


@pytest.mark.parametrize(("inputs", "score", "told"), list(BRINGING.values()), ids=list(BRINGING))
def test_an_empty_row_is_blamed_on_what_can_bring_it(inputs: tuple[str, ...], score: str, told: str) -> None:
    doc = " ".join(text_of(*inputs, f"score = {score}").split('"""')[1].split())
    assert f"A row may be empty, since {told}. It gives" in doc


def test_the_docstring_derives_the_loop_bounds_from_the_mask() -> None:
    doc = text_of("mask = 0 <= dist < 90").split('"""')[1]
    expected = """
    The queries q_first..q_last
        can keep no keys but [q_first + offset - 89, q_last + offset + 1)
        all keep [q_last + offset - 89, q_first + offset + 1)
"""
    assert expected in doc


# ---- What must hold ----------------------------------------------------------------------------------------

FLOATS = st.sampled_from([0.0, -0.0, 1.0, -2.5, 3e38, INF, -INF, math.nan])


def envs(q_len: int, k_len: int, values: list[float], n: int) -> list[Env]:
    """Every place of one head of a call."""
    words = {"b": 0, "h": 1, "batch": 1, "heads": 2, "kv_heads": 1, "head_dim": 4, "v_dim": 4}
    table = [[values[(x + y) % len(values)] for x in range(3)] for y in range(2)]
    docs = [[(x * n) // 2 for x in range(k_len)]]
    rows = [[values[(x + y) % len(values)] for x in range(2)] for y in range(max(q_len, k_len))]
    return [
        Env(
            words={**words, "q": q, "k": k, "q_len": q_len, "k_len": k_len},
            params={"p": values[0], "m": n},
            sizes={"extra": 3},
            inputs={"t": table, "doc": docs, "flag": n % 2 == 0, "u": [[rows, rows]], "w": [rows]},
            score=[1.5, -40.0, 2.0**60, 0.0][(q + k) % 4],
            wraps=True,
        )
        for q in range(q_len)
        for k in range(k_len)
    ]


def hold(ir: AttentionIR, found: Facts, q_len: int, k_len: int, places: list[Env]) -> None:
    """Every fact, at every place of one head of a call."""
    kept = dict.fromkeys(range(q_len), False)
    sizes = {
        Sizes.ANY: True,
        Sizes.SOME_KEYS: k_len > 0,
        Sizes.NO_FEWER_KEYS: q_len <= k_len,
    }
    first: dict[tuple[int, Expr], object] = {}
    for env in places:
        score = float(evaluate(ir.final_score, env))
        kept[env.words["q"]] |= bool(evaluate(ir.mask, env)) and score != -INF
        if found.bound is not None:
            bound = float(evaluate(found.bound, env))
            assert not abs(score) > bound * (1 + 1e-6), "the bound"
        for term in found.shifts:
            value = first.setdefault((env.words["q"], term), evaluate(term, env))
            assert repr(value) == repr(evaluate(term, env)), "a term that does not depend on the key"
        for fact in found.inside:
            index = evaluate(fact.index, env)
            length = fact.dim if isinstance(fact.dim, int) else {**env.words, **env.sizes}[fact.dim]
            assert 0 <= index < length, "an index inside"
    proof = found.nonempty
    if isinstance(proof, Nonempty) and proof.key is not None and sizes[proof.sizes]:
        assert all(kept.values()), "no row is empty"


SHAPES = [(1, 1), (1, 4), (4, 1), (3, 3), (2, 5), (5, 2)]


@settings(max_examples=70, deadline=None)
@given(specs(), st.lists(FLOATS, min_size=1, max_size=4), st.integers(-3, 6))
@example(DECLARATIONS + "score = score + t[h, clamp(dist, 0, extra - 1)]\nmask = causal\n", [1.0, -INF], 3)
@example(DECLARATIONS + "score = softcap(score, p)\nmask = sliding_window(n)\n", [INF], 3)
def test_no_fact_of_a_random_spec_is_false(text: str, values: list[float], n: int) -> None:
    try:
        ir = ir_of(text)
    except AttnGenError:
        assume(False)
    found = facts_of(ir)
    for q_len, k_len in SHAPES:
        hold(ir, found, q_len, k_len, envs(q_len, k_len, values, n))


MASKS = [
    "causal",
    "sliding_window(n)",
    "k < 2 or causal",
    "abs(dist) <= 1",
    "doc[b, pos] == doc[b, k]",
    "True",
]
SCORES = ["score", "softcap(score, p)", "clamp(score, -c, c)", "score - c * abs(dist)", "score + t[h, 1]"]


@settings(max_examples=40, deadline=None)
@given(
    st.sampled_from(MASKS),
    st.sampled_from(["and", "or"]),
    expressions("bool", depth=1),
    st.sampled_from(SCORES),
    st.lists(FLOATS, min_size=1, max_size=4),
    st.integers(-3, 6),
)
def test_no_fact_of_a_likely_spec_is_false(
    mask: str, op: str, other: str, score: str, values: list[float], n: int
) -> None:
    try:
        ir = ir_of(DECLARATIONS + f"score = {score}\nmask = ({mask}) {op} ({other})\n")
    except AttnGenError:
        assume(False)
    found = facts_of(ir)
    for q_len, k_len in SHAPES:
        hold(ir, found, q_len, k_len, envs(q_len, k_len, values, n))


@pytest.mark.parametrize("name", sorted(path.stem for path in zoo_dir().glob("*.attn")))
def test_an_interval_holds_what_a_conditional_gives(name: str) -> None:
    """Branches are narrowed by their condition: every index of the zoo lies where its interval says."""
    ir = simplify_ir(check_spec(find_spec(name)).ir)
    indices = {
        fact.index: fact.values
        for fact in facts_of(ir).inside
        if not any(node.op is Op.LOAD for node in fact.index.args)
    }
    words = {"b": 0, "h": 0, "batch": 1, "heads": 1, "kv_heads": 1, "q_len": 900, "k_len": 900}
    sizes = {d: 40 for one in ir.inputs for d in one.dims if isinstance(d, str) and d not in words}
    for q, k in [
        (0, 0),
        (0, 899),
        (899, 0),
        (450, 443),
        (450, 442),
        (450, 458),
        (128, 0),
        (0, 128),
        (300, 7),
    ]:
        for index, values in indices.items():
            if not any(leaves(index, op=Op.LOAD)):
                got = values_of(index, Env(words={**words, "q": q, "k": k}, sizes=sizes))[index]
                assert values.lo <= got <= values.hi


# ---- What the kernels make of them -------------------------------------------------------------------------


@pytest.mark.parametrize(("q_len", "k_len"), [(9, 12), (12, 9)])
@pytest.mark.parametrize(
    "lines",
    [
        ("mask = causal",),
        ("mask = 0 <= dist < 3",),
        ("param c: float = 2.0", "score = softcap(score, c)", "mask = causal"),
        ("input s: float32[heads]", "mask = causal", "sink = s[h]"),
        ("mask = causal", "sink = -3.0"),
    ],
    ids=["causal", "window", "softcap", "sink", "finite sink"],
)
def test_a_kernel_without_a_guard_is_right_at_every_size(
    lines: tuple[str, ...], q_len: int, k_len: int
) -> None:
    inputs = {"s": torch.tensor([-2.0])} if "s[h]" in lines[-1] else {}
    judge(variant_of(*lines), call=inputs, q_len=q_len, k_len=k_len)


@pytest.mark.parametrize("cap", [1e-30, 0.5, 52.0, 60.0])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_bounded_score_needs_no_maximum(cap: float, dtype: str) -> None:
    """Products so large that most scores lie at either bound."""
    lines = (f"const cap: float = {cap}", "score = softcap(score * 40.0, cap)", "mask = 0 <= dist < 5")
    assert ("BOUNDED" in variant_of(*lines).source) is (cap <= 52)
    judge(variant_of(*lines), q_len=11, k_len=9, dtype=dtype)


@pytest.mark.parametrize(
    ("lines", "bounded"),
    [
        (("score = softcap(score, 30.0)",), True),
        (("score = softcap(score, 30.0) + 22.0",), True),
        (("score = softcap(score, 30.0) + 22.1",), False),
        (("param c: float", "score = softcap(score, c)"), False),
        (("input c: float32[heads]", "score = softcap(score, c[h])"), False),
        (("score = softcap(score, 30.0)", "sink = 0.0"), False),
        (("mask = causal",), False),
    ],
)
def test_a_maximum_is_taken_unless_consts_bound_the_score(lines: tuple[str, ...], bounded: bool) -> None:
    assert ("BOUNDED" in text_of(*lines)) is bounded


def test_rows_before_every_key_give_0_and_minus_infinity() -> None:
    q, k, v = qkv(q_len=7, k_len=4)
    out, lse = variant_of("mask = causal")(q, k, v, return_lse=True)
    assert not out[:, :, :3].any() and (lse[:, :, :3] == -INF).all() and lse[:, :, 3:].isfinite().all()


def test_scores_near_the_least_float32_are_scores() -> None:
    """The running maximum begins there; only -inf is masked."""
    q, k, v = qkv(q_len=4, k_len=4)
    out, _ = variant_of("score = score * 0.0 - 2e38")(q, k, v, return_lse=True)
    torch.testing.assert_close(out, v.mean(2, keepdim=True).expand_as(out))


def test_a_param_is_no_bound_of_the_variant_alone() -> None:
    found = facts("param c: float", "score = softcap(score, c)")
    assert found.bound is not None and set(leaves(found.bound, op=Op.PARAM)) == {param("c", Type.FLOAT)}


def test_terms_that_share_much_are_walked_once() -> None:
    """Each line doubles the one before: 2**100 terms, 100 nodes."""
    doubled = "\n".join(f"let x{n + 1} = x{n} + x{n} * 0.5" for n in range(100))
    clauses = "\n".join(f"let m{n + 1} = (m{n} or k < {n}) and (m{n} or q > {n})" for n in range(30))
    text = f"variant v\nlet x0 = score\n{doubled}\nscore = x100\nlet m0 = causal\n{clauses}\nmask = m30\n"
    front = check_spec(Source(text))
    assert facts_of(simplify_ir(front.ir)).shifts == ()
