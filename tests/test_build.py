"""Names, types and lowerings: what a spec means, node by node."""

import re
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attngen.errors import AttnGenError, SpecNameError, SpecTypeError, SpecValueError
from attngen.ir.build import build, prelude
from attngen.ir.fold import FoldError, folded
from attngen.ir.nodes import (
    SCORE,
    TRUE,
    AttentionIR,
    Expr,
    Input,
    Op,
    Param,
    const,
    load,
    make,
    param,
    size,
    word,
)
from attngen.ir.types import Scalar, Type
from attngen.ir.verify import VerifyError, verify
from attngen.source import Source
from attngen.syntax.parse import parse

Q, K, POS, H = word("q"), word("k"), word("pos"), word("h")
DIST = make(Op.SUB, POS, K)


def ir_of(text: str, **overrides: Scalar) -> AttentionIR:
    source = Source("variant x\n" + text)
    return build(parse(source), source, overrides)


def value(text: str) -> Expr:
    """What an expression of any type builds to: as a mask, as an index, or, a float, as a score."""
    for place in ("mask = {}", "input t: float32[9]\nscore = t[{}]", "score = {}"):
        try:
            ir = ir_of(place.format(text))
        except SpecTypeError:
            continue
        return ir.mask if "mask" in place else ir.score[0].args[0] if "t[" in place else ir.score[0]
    raise AssertionError(text)


def f(x: Expr) -> Expr:
    return make(Op.TO_FLOAT, x)


EXAMPLES = re.findall(
    r"```attn\n(.*?)```",
    (Path(__file__).parent.parent / "docs" / "language.md").read_text("utf-8"),
    re.DOTALL,
)


@pytest.mark.parametrize("text", EXAMPLES, ids=lambda t: re.search(r"variant (\w+)", t)[1])
def test_each_example_of_the_language_guide_builds(text: str) -> None:
    source = Source(text)
    verify(build(parse(source), source))


def test_the_language_guide_has_many_examples() -> None:
    assert len(EXAMPLES) >= 10


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("q > k", lambda: make(Op.LT, K, Q)),
        ("q >= k", lambda: make(Op.LE, K, Q)),
        ("0 <= dist < 8", lambda: make(Op.AND, make(Op.LE, const(0), DIST), make(Op.LT, DIST, const(8)))),
        ("q + k * 2", lambda: make(Op.ADD, Q, make(Op.MUL, K, const(2)))),
        ("q * 2.0", lambda: make(Op.MUL, f(Q), const(2.0))),
        ("q / k", lambda: make(Op.DIV, f(Q), f(K))),
        ("q ** 2", lambda: make(Op.MUL, Q, Q)),
        ("q ** 5", lambda: make(Op.MUL, make(Op.MUL, make(Op.MUL, Q, Q), make(Op.MUL, Q, Q)), Q)),
        ("q ** 0", lambda: const(1)),
        ("q ** 0.5", lambda: make(Op.SQRT, f(Q))),
        ("float(q) ** -0.5", lambda: make(Op.RSQRT, f(Q))),
        ("float(q) ** -2", lambda: make(Op.DIV, const(1.0), make(Op.MUL, f(Q), f(Q)))),
        ("-q ** 2", lambda: make(Op.NEG, make(Op.MUL, Q, Q))),
        ("q // 3", lambda: make(Op.FLOORDIV, Q, const(3))),
        ("q // 3.0", lambda: make(Op.FLOOR, make(Op.DIV, f(Q), const(3.0)))),
        (
            "q % 3.0",
            lambda: make(
                Op.SUB, f(Q), make(Op.MUL, make(Op.FLOOR, make(Op.DIV, f(Q), const(3.0))), const(3.0))
            ),
        ),
        ("int(q)", lambda: Q),
        ("floor(q)", lambda: Q),
        ("int(q < k)", lambda: make(Op.WHERE, make(Op.LT, Q, K), const(1), const(0))),
        ("float(q < k)", lambda: make(Op.WHERE, make(Op.LT, Q, K), const(1.0), const(0.0))),
        ("int(sqrt(q))", lambda: make(Op.TO_INT, make(Op.SQRT, f(Q)))),
        ("min(q, k, 2.5)", lambda: make(Op.MIN, f(make(Op.MIN, Q, K)), const(2.5))),
        ("clamp(q, 0, 2.5)", lambda: make(Op.CLAMP, f(Q), const(0.0), const(2.5))),
        ("q if k < 3 else 0.5", lambda: make(Op.WHERE, make(Op.LT, K, const(3)), f(Q), const(0.5))),
        ("+q", lambda: Q),
        ("7 // -2", lambda: const(-4)),
        ("7 % -2", lambda: const(-1)),
        ("2 ** 10", lambda: const(1024)),
        ("-inf", lambda: const(float("-inf"))),
        ("1 / 4", lambda: const(0.25)),
        ("floor(-2.5)", lambda: const(-3.0)),
        ("int(-2.5)", lambda: const(-2)),
        ("int(1e30)", lambda: const(2**31 - 1)),
        ("dist", lambda: DIST),
        ("(q < k) == (k < 3)", lambda: make(Op.EQ, make(Op.LT, Q, K), make(Op.LT, K, const(3)))),
    ],
)
def test_each_construct_lowers_to_its_nodes(text: str, expected: Callable[[], Expr]) -> None:
    assert value(text) is expected()


def test_the_running_score_is_bound_at_each_line() -> None:
    ir = ir_of(
        "let raw = score\nscore = tanh(score)\nlet capped = score\nscore = score + raw\nscore = capped"
    )
    tanh = make(Op.TANH, SCORE)
    assert ir.score == (tanh, make(Op.ADD, tanh, SCORE), tanh)
    assert ir.final_score is tanh


def test_a_def_reads_the_score_of_its_call() -> None:
    ir = ir_of("def doubled() = score * 2\nscore = doubled()\nscore = doubled()")
    once = make(Op.MUL, SCORE, const(2.0))
    assert ir.score == (once, make(Op.MUL, once, const(2.0)))


def test_a_def_keeps_the_meaning_that_names_had_at_its_line() -> None:
    ir = ir_of("def f(x) = square(x)\ndef square(x) = x + 1\nscore = f(score)\nscore = square(score)")
    assert ir.score[0] is make(Op.MUL, SCORE, SCORE)
    assert ir.score[1] is make(Op.ADD, make(Op.MUL, SCORE, SCORE), const(1.0))
    assert set(ir.spans) >= {"shadow square", "score[0]", "score[1]", "variant"}
    assert ir.spans["shadow square"].line == 3


def test_declarations_keep_order_types_and_places() -> None:
    ir = ir_of(
        "const n: int = 4\nconst r: float = 1\nparam c: float = 2\nparam m: int\nparam on: bool = True\n"
        "input t: float16[heads, 2 * n, extra] grad\ninput d: int64[batch, extra] sorted\ninput z: bool[]\n"
        "let far = dist + extra\nscore = score + t[h, 1, m] * c * r\nmask = z or on and d[b, k] < far\n"
        "sink = c\ndropout = 0.5"
    )
    assert ir.consts == (("n", 4), ("r", 1.0)) and type(ir.consts[1][1]) is float
    assert ir.params == (Param("c", Type.FLOAT, 2.0), Param("m", Type.INT), Param("on", Type.BOOL, True))
    assert ir.inputs == (
        Input("t", "float16", ("heads", 8, "extra"), grad=True),
        Input("d", "int64", ("batch", "extra"), sorted=True),
        Input("z", "bool"),
    )
    assert ir.mask.args[0] is load("z", Type.BOOL, ())
    assert ir.sink is param("c", Type.FLOAT) and ir.dropout is const(0.5)
    far = make(Op.ADD, DIST, size("extra"))
    assert ir.names == {far: "far"}
    assert ir.spans["input t"].line == 7 and ir.spans["param m"].line == 5 and ir.spans["mask"].line == 12


def test_defaults_are_the_papers() -> None:
    ir = ir_of("")
    assert ir.mask is TRUE and ir.score == () and ir.sink is None and ir.dropout is None
    assert ir.scale is make(Op.DIV, const(1.0), make(Op.SQRT, f(word("head_dim"))))


def test_overrides_replace_consts_and_what_is_computed_from_them() -> None:
    text = "const n: int = 4\nconst twice: int = 2 * n\nconst r: float = 0.5\nmask = dist < twice"
    ir = ir_of(text, n=10, r=2)
    assert ir.consts == (("n", 10), ("twice", 20), ("r", 2.0))
    assert ir.mask is make(Op.LT, DIST, const(20))


@pytest.mark.parametrize(
    ("overrides", "kind", "message"),
    [
        ({"nn": 3}, SpecNameError, "there is no const 'nn' to set; did you mean 'n'"),
        ({"n": 2.5}, SpecTypeError, "declared int"),
        ({"n": True}, SpecTypeError, "declared int"),
        ({"n": "4"}, SpecTypeError, "cannot be set to a str"),
        ({"n": 2**63}, SpecValueError, "int64"),
        ({"r": float("nan")}, SpecValueError, "not a number"),
        ({"r": 10**400}, SpecValueError, "not a number"),
    ],
)
def test_wrong_overrides_are_located_errors(
    overrides: dict[str, Scalar], kind: type[AttnGenError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        ir_of("const n: int = 4\nconst r: float = 1.0", **overrides)
    assert caught.value.line is not None


@given(st.integers(-50, 50), st.integers(-50, 50), st.sampled_from(["+", "-", "*", "//", "%", "/", "**"]))
def test_constants_fold_as_python_computes(x: int, y: int, op: str) -> None:
    try:
        expected = eval(f"({x}) {op} ({y})")
    except ZeroDivisionError:
        expected = None
    if op == "**" and (y < 0 or abs(expected or 0) >= 2**63):
        expected = None
    text = f"const a: {'float' if op == '/' else 'int'} = ({x}) {op} ({y})"
    if expected is None:
        with pytest.raises((SpecValueError, SpecTypeError)):
            ir_of(text)
    else:
        assert ir_of(text).consts == (("a", expected),)


_NUMBERS = st.one_of(st.integers(-(2**63) + 1, 2**63 - 1), st.floats(allow_nan=False), st.booleans())


@given(st.sampled_from(list(Op)), st.lists(_NUMBERS, min_size=1, max_size=3))
def test_folding_raises_nothing_but_its_own_error(op: Op, values: list[Scalar]) -> None:
    args = [const(v) for v in values]
    try:
        make(op, *args)
    except TypeError:
        return  # the types do not fit the op
    try:
        result = folded(op, *args)
    except FoldError:
        return
    assert result.op is Op.CONST and result.type is make(op, *args).type


def test_prelude_words_may_be_redefined_and_are_not_names_of_the_spec() -> None:
    ir = ir_of("let causal = dist > 0\nmask = causal")
    assert ir.mask is make(Op.LT, const(0), DIST)
    assert ir.names == {ir.mask: "causal"} and "shadow causal" in ir.spans
    assert ir_of("mask = causal").names == {}
    assert {"causal", "sliding_window", "softcap", "t5_bucket"} <= set(prelude())


def test_sliding_window_keeps_exactly_n_keys() -> None:
    assert ir_of("mask = sliding_window(4)").mask is value("0 <= dist < 4")


@pytest.mark.parametrize(
    "broken",
    [
        AttentionIR("x", scale=TRUE),
        AttentionIR("x", scale=SCORE),
        AttentionIR("x", scale=const(1.0), mask=const(1.0)),
        AttentionIR("x", scale=const(1.0), mask=make(Op.LT, SCORE, const(1.0))),
        AttentionIR("x", scale=const(1.0), score=(param("p", Type.FLOAT),)),
        AttentionIR("x", scale=const(1.0), score=(load("t", Type.FLOAT, (H,)),)),
        AttentionIR(
            "x", scale=const(1.0), score=(load("t", Type.FLOAT, ()),), inputs=(Input("t", "float32", (2,)),)
        ),
        AttentionIR(
            "x", scale=const(1.0), score=(load("t", Type.FLOAT, (H,)),), inputs=(Input("t", "int32", (2,)),)
        ),
        AttentionIR("x", scale=const(1.0), mask=make(Op.LT, word("q_first"), Q)),
        AttentionIR("x", scale=const(1.0), mask=make(Op.LT, size("n"), Q)),
        AttentionIR("x", scale=const(1.0), score=(const(float("nan")),)),
        AttentionIR("x", scale=const(1.0), inputs=(Input("t", "int32", (), sorted=True),)),
        AttentionIR("x", scale=const(1.0), inputs=(Input("t", "int32", (2,), grad=True),)),
        AttentionIR("x", scale=const(1.0), params=(Param("p", Type.INT, 1.0),)),
        AttentionIR("x", scale=const(1.0), sink=f(Q)),
        AttentionIR(
            "x", scale=const(1.0), dropout=load("t", Type.FLOAT, ()), inputs=(Input("t", "float32"),)
        ),
    ],
)
def test_verify_refuses_what_no_spec_means(broken: AttentionIR) -> None:
    with pytest.raises(VerifyError):
        verify(broken)
