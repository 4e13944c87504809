"""Emitted Triton text: few parentheses, and the value that the language gives, in Triton's interpreter."""

from __future__ import annotations

import ast
import math
from collections.abc import Callable
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, example, given, settings
from hypothesis import strategies as st
from ir_eval import Env, _value, to_float32
from ir_text import expr, show

from attngen.analysis.interval import interval_of
from attngen.emit.host_expr import HostExpr
from attngen.emit.names import HELPERS, Names
from attngen.emit.statements import Block, Writer
from attngen.emit.triton_expr import TritonExpr
from attngen.ir.nodes import (
    SCORE,
    AttentionIR,
    Expr,
    Input,
    Op,
    Param,
    const,
    load,
    make,
    param,
    postorder,
    word,
)
from attngen.ir.types import SCALARS, Scalar, Type
from attngen.pipeline import compile_spec
from attngen.plan.arithmetic import arithmetic
from attngen.runtime.loader import load_module
from attngen.source import Source

PARAMS = {"n": Type.INT, "m": Type.INT, "window": Type.INT, "x": Type.FLOAT, "y": Type.FLOAT, "p": Type.BOOL}
PARAMS |= {"cap": Type.FLOAT, "r": Type.BOOL}
INPUTS = (
    Input("doc", "int32", ("batch", "k_len")),
    Input("tag", "int64", ("extra",)),
    Input("slopes", "float32", ("heads",)),
    Input("bias", "float16", ("heads", 3)),
    Input("keep", "bool", ("heads",)),
)
IR = AttentionIR("x", const(1.0), params=tuple(Param(n, t) for n, t in PARAMS.items()), inputs=INPUTS)
N = 4  # the tile's side


def written(root: Expr) -> Block:
    """The lines and the text of one expression."""
    names = Names(IR, ["out dot_ptr value N"])
    return Writer(TritonExpr(IR, arithmetic(root, ir=IR), names), names).results([root])


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("q - (h - k)", "q - (h - k)"),
        ("q - h - k", "q - h - k"),
        ("(x + y) * cap", "(x + y) * cap"),
        ("3 * (q // 4)", "3 * (q // 4)"),
        ("q // 4 * 4", "q // 4 * 4"),
        ("q // (k + 1)", "q // (k + 1)"),
        ("x * (y / cap)", "x * (y / cap)"),
        ("x + (y + cap)", "x + (y + cap)"),
        ("-(x + y)", "-(x + y)"),
        ("-x * y", "-x * y"),
        ("x - -3.0", "x - -3.0"),
        ("0 <= q - k", "q - k >= 0"),
        ("q < k and k < q_len or q == 3", "(q < k) & (k < q_len) | (q == 3)"),
        ("(q < k or q == 3) and k < 5", "((q < k) | (q == 3)) & (k < 5)"),
        ("not (q < k)", "~(q < k)"),
        ("not (p and r)", "~((p != 0) & (r != 0))"),
        ("x < y and q < k", "as_bool(x < y) & (q < k)"),
        ("p and 0.5 <= slopes[0]", "(p != 0) & as_bool(tl.load(slopes_ptr) >= 0.5)"),
        ("n < m or float(q) < x", "(n < m) | (q.to(tl.float32) < x)"),
        ("(q < k) == (k < 3)", "(q < k) == (k < 3)"),
        ("float(q + k) * x", "(q + k).to(tl.float32) * x"),
        ("q // n", "floor_divide(q, n)"),
        ("(q - k) % 4", "floor_modulo(q - k, 4)"),
        ("clamp(q, 1, 3)", "tl.minimum(tl.maximum(q, 1), 3)"),
        ("q * k", "q.to(tl.int64) * k.to(tl.int64)"),
        ("q if q < k else k", "tl.where(q < k, q, k)"),
        ("slopes[h]", "tl.load(slopes_ptr + h.to(tl.int64) * slopes_stride_0)"),
        ("slopes[0]", "tl.load(slopes_ptr)"),
        ("doc[b, pos]", "tl.load(doc_ptr + b.to(tl.int64) * doc_stride_0"
         " + tl.maximum(pos, 0).to(tl.int64) * doc_stride_1)"),
    ],
)  # fmt: skip
def test_text_has_the_parentheses_that_it_needs_and_no_more(spec: str, text: str) -> None:
    assert written(expr(spec)).results == (text,)


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("x / y < 1.0", "as_bool(tl.div_rn(x, y) < 1.0)"),
        ("floor(x / y) * y", "tl.floor(tl.div_rn(x, y)) * y"),
        ("int(sqrt(x))", "truncate(tl.sqrt_rn(x))"),
        ("floor(rsqrt(x))", "tl.floor(tl.div_rn(1.0, tl.sqrt_rn(x)))"),
        ("floor(x * y)", "tl.floor(x * y)"),
        ("floor(x * y + cap)", "tl.floor(product(x, y) + cap)"),
        ("floor(cap - x * y)", "tl.floor(cap - product(x, y))"),
        ("floor(-(x * y))", "tl.floor(-product(x, y))"),
        ("int(x * 3.0 + y)", "truncate(product(x, 3.0) + y)"),
        ("x / y + x * y", "x / y + x * y"),
        ("sqrt(x) * floor(y)", "tl.sqrt(x) * tl.floor(y)"),
        ("where(x < y, x / y, y / x)", "tl.where(as_bool(x < y), x / y, y / x)"),
        ("floor(where(p, x / y, x))", "tl.floor(tl.where(p != 0, tl.div_rn(x, y), x))"),
    ],
)  # fmt: skip
def test_what_decides_something_rounds_at_each_operation_and_nothing_else_does(spec: str, text: str) -> None:
    assert written(expr(spec)).results == (text,)


def test_an_index_that_may_wrap_around_is_clamped_on_both_sides() -> None:
    """min(n * n, 5) is at least 0 in the language; 64 bits may make n ** 4 negative, and then it is not."""
    square = make(Op.MUL, N_, N_)
    (text,) = written(load("tag", Type.INT, (make(Op.MIN, make(Op.MUL, square, square), const(5)),))).results
    assert "tl.maximum(" in text and "tl.minimum(" in text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (float("inf"), 'float("inf")'),
        (float("-inf"), 'float("-inf")'),
        (1e39, 'float("inf")'),
        (1e-40, "tl.cast(1e-40, tl.float32)"),  # as a literal Triton would read a float64
        (0.1, "0.1"),
        (-2, "-2"),
        (2**31 - 1, "2147483647"),
        (2**31, "tl.cast(2147483648, tl.int64)"),  # as a literal Triton would read a uint32
        (True, "tl.cast(True, tl.int1)"),
    ],
)
def test_a_constant_has_float32s_range(value: Scalar, text: str) -> None:
    assert written(const(value)).results == (text,)


def test_a_shared_term_gets_one_line_and_a_name() -> None:
    squashed = make(Op.TANH, param("x", Type.FLOAT))
    block = written(make(Op.SUB, const(1.0), make(Op.MUL, squashed, squashed)))
    assert block.lines == ("squashed = tanh(x, FAST_TANH)",)
    assert block.results == ("1.0 - squashed * squashed",)
    assert block.uses == ("x", "FAST_TANH")


def test_long_expressions_become_short_lines() -> None:
    total = SCORE
    for n in range(600):
        total = make(Op.ADD, make(Op.MUL, total, const(n + 0.5)), make(Op.SIN, make(Op.TO_FLOAT, word("q"))))
    block = written(total)
    assert len(block.lines) > 50
    assert max(map(len, (*block.lines, *block.results))) <= 100


# -- values -------------------------------------------------------------------------------------------------

INT_LEAVES = [word(w) for w in ("q", "k", "pos", "h", "k_len")] + [param(n, Type.INT) for n in ("n", "m")]
INT_LEAVES += [const(c) for c in (0, 1, -3, 7, 2**31, -(2**31))]
FLOAT_LEAVES = [
    SCORE,
    param("x", Type.FLOAT),
    param("y", Type.FLOAT),
    load("slopes", Type.FLOAT, (word("h"),)),
]
FLOAT_LEAVES += [const(c) for c in (0.5, -2.0, 0.1, 3e9, float("inf"), 1e-41)]
BOOL_LEAVES = [param("p", Type.BOOL), load("keep", Type.BOOL, (word("h"),)), const(True)]


def made(*ops: Op) -> Callable[..., st.SearchStrategy[Expr]]:
    return lambda *args: st.builds(make, st.sampled_from(ops), *args)


@cache
def exprs(kind: Type, depth: int = 4) -> st.SearchStrategy[Expr]:
    """Expressions whose value a float32 computation gives exactly: no exp, no sin."""
    leaves = {Type.INT: INT_LEAVES, Type.FLOAT: FLOAT_LEAVES, Type.BOOL: BOOL_LEAVES}[kind]
    if depth == 0:
        return st.sampled_from(leaves)
    i, f, b = (exprs(t, depth - 1) for t in (Type.INT, Type.FLOAT, Type.BOOL))
    if kind is Type.INT:
        indexed = st.builds(lambda x, y: load("doc", Type.INT, (x, y)), i, i)
        wide = st.builds(lambda x: load("tag", Type.INT, (x,)), i)
        options = [
            made(Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.MAX)(i, i),
            made(Op.FLOORDIV, Op.MOD)(i, i),
            made(Op.NEG, Op.ABS)(i),
            made(Op.CLAMP)(i, i, i),
            made(Op.WHERE)(b, i, i),
            made(Op.TO_INT)(f),
            indexed,
            wide,
        ]
    elif kind is Type.FLOAT:
        options = [
            made(Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MIN, Op.MAX)(f, f),
            made(Op.NEG, Op.ABS, Op.FLOOR)(f),
            made(Op.CLAMP)(f, f, f),
            made(Op.WHERE)(b, f, f),
            made(Op.TO_FLOAT)(i),
            st.builds(lambda x: load("bias", Type.FLOAT, (word("h"), x)), i),
        ]
    else:
        options = [
            made(Op.LT, Op.LE, Op.EQ, Op.NE)(i, i),
            made(Op.LT, Op.LE, Op.EQ, Op.NE)(f, f),
            made(Op.AND, Op.OR, Op.EQ, Op.NE)(b, b),
            made(Op.NOT)(b),
        ]
    return st.one_of(st.sampled_from(leaves), *options)


@st.composite
def worlds(draw: st.DrawFn) -> dict[str, Any]:
    """Numbers for every name."""
    small = st.sampled_from([0, 1, -1, 2, 3, -5, 7, 100, 2**31 - 1, -(2**31)])
    floats = st.sampled_from([0.0, 1.0, -0.75, 2.5, 1e10, -3e9, 0.1, 1e30, math.inf]).map(to_float32)
    heads, batch = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    q_len, k_len, extra = draw(st.integers(N, 7)), draw(st.integers(N, 7)), draw(st.integers(1, 3))

    def table(values: st.SearchStrategy[Any], *shape: int) -> Any:
        if not shape:
            return draw(values)
        return [table(values, *shape[1:]) for _ in range(shape[0])]

    big = st.sampled_from([0, -1, 5, 2**40, -(2**33)])
    return {
        "words": {"q_len": q_len, "k_len": k_len, "heads": heads, "kv_heads": 1, "batch": batch,
                  "head_dim": 16, "v_dim": 16,
                  "h": draw(st.integers(0, heads - 1)), "b": draw(st.integers(0, batch - 1))},
        "params": {n: draw({Type.INT: small, Type.FLOAT: floats, Type.BOOL: st.booleans()}[t])
                   for n, t in PARAMS.items()},
        "sizes": {"extra": extra},
        "inputs": {
            "doc": table(small, batch, k_len),
            "tag": table(big, extra),
            "slopes": table(floats, heads),
            "bias": table(st.sampled_from([0.5, -1.25, 3.0]), heads, 3),
            "keep": table(st.booleans(), heads),
        },
        "scores": table(floats, N, N),
    }  # fmt: skip


@cache
def helpers() -> str:
    """The functions that expressions may call, as an emitted module has them."""
    mask = "dist // -3 + dist % 5 < int(1e9 * float(k)) or 0.3 * h - 2 < 1"
    spec = f"variant h\nscore = tanh(score)\nmask = {mask}"
    text = compile_spec(Source(spec, "h")).text
    found = [n for n in ast.parse(text).body if isinstance(n, ast.FunctionDef) and n.name in HELPERS]
    assert len(found) == len(HELPERS)
    return "\n\n".join(f"@triton.jit\n{ast.get_source_segment(text, n)}" for n in found)


_number = count()


def run(root: Expr, world: dict[str, Any], folder: Path) -> list[list[Scalar]]:
    """What the text of ``root`` gives for every q and k below N, in Triton's interpreter."""
    block = written(root)
    arguments: dict[str, Any] = {}
    dtypes = {i.name: getattr(torch, i.dtype) for i in INPUTS}
    for name, data in world["inputs"].items():
        tensor = torch.tensor(data, dtype=dtypes[name])
        arguments[f"{name}_ptr"] = tensor
        arguments |= {f"{name}_stride_{axis}": s for axis, s in enumerate(tensor.stride())}
    arguments |= world["words"] | world["sizes"]
    arguments |= {n: int(x) if isinstance(x, bool) else x for n, x in world["params"].items()}
    kinds = {Type.INT: torch.int64, Type.FLOAT: torch.float32, Type.BOOL: torch.int8}
    out = torch.zeros(N, N, dtype=kinds[root.type])
    lines = [
        "import triton",
        "import triton.language as tl",
        helpers(),
        "@triton.jit",
        f"def kernel(out, dot_ptr, {', '.join(arguments)}, N: tl.constexpr, FAST_TANH: tl.constexpr):",
        *(f"    {n} = tl.cast({n}, tl.float32)" for n, kind in PARAMS.items() if kind is Type.FLOAT),
        "    q = tl.arange(0, N)[:, None]",
        "    k = tl.arange(0, N)[None, :]",
        "    pos = q + (k_len - q_len)",
        "    dot = tl.load(dot_ptr + q * N + k)",
        *(f"    {line}" for line in block.lines),
        f"    value = {block.results[0]}",
        "    tl.store(out + q * N + k, tl.where((q >= 0) & (k >= 0), value, value))",
    ]
    path = folder / f"kernel_{next(_number)}.py"
    path.write_text("\n".join(lines) + "\n")
    kernel = load_module(path).kernel
    with np.errstate(all="ignore"):
        kernel[(1,)](out, torch.tensor(world["scores"]), **arguments, N=N, FAST_TANH=False)
    values = out.bool() if root.type is Type.BOOL else out
    result: list[list[Scalar]] = values.tolist()
    return result


def expected(
    root: Expr, world: dict[str, Any], q: int, k: int, require: Callable[[bool], object] = bool
) -> Scalar:
    """The value where every float operation rounds to float32; ``require`` hears what it leaves open."""
    words = world["words"] | {"q": q, "k": k}
    env = Env(words, world["params"], world["sizes"], world["inputs"], world["scores"][q][k])
    values: dict[Expr, Scalar] = {}
    for node in postorder(root):
        args = [values[a] for a in node.args]
        if node.type is Type.FLOAT and node.op in (Op.MIN, Op.MAX, Op.CLAMP):
            require(not any(map(math.isnan, args)))  # the kernels may return the number
        if node.op is Op.DIV:
            require(args[1] != 0)  # the sign of a zero is nobody's promise
        if node.op is Op.TO_INT:
            require(abs(args[0]) < 2**30)  # saturation has a test of its own
        value = _value(node, args, env)
        if node.type is Type.INT:
            require(abs(value) < 2**53)
        values[node] = to_float32(value) if node.type is Type.FLOAT else value
    return values[root]


N_, M_, X_, Q_, K_ = param("n", Type.INT), param("m", Type.INT), param("x", Type.FLOAT), word("q"), word("k")
Y_ = param("y", Type.FLOAT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("kernels")


@settings(max_examples=150)
@given(root=st.one_of(exprs(Type.INT), exprs(Type.FLOAT), exprs(Type.BOOL)), world=worlds())
def test_text_has_the_value_of_its_expression(folder: Path, root: Expr, world: dict[str, Any]) -> None:
    want = [[expected(root, world, q, k, assume) for k in range(N)] for q in range(N)]
    got = run(root, world, folder)
    for q in range(N):
        for k in range(N):
            same = got[q][k] == want[q][k] or (got[q][k] != got[q][k] and want[q][k] != want[q][k])
            assert same, f"{show(root)} at q={q}, k={k}: {got[q][k]}, not {want[q][k]}\n{written(root)}"


SHARED = [leaf for leaf in FLOAT_LEAVES if leaf is not SCORE]
decisions = made(Op.LT, Op.LE, Op.EQ, Op.NE)(
    st.sampled_from(SHARED),
    made(Op.ADD, Op.MUL, Op.DIV, Op.MAX)(st.sampled_from(SHARED), st.sampled_from(SHARED)),
)


@settings(max_examples=60)
@given(
    root=made(Op.AND, Op.OR, Op.EQ, Op.NE)(
        st.one_of(decisions, made(Op.NOT)(decisions)),
        st.one_of(exprs(Type.BOOL, 1), made(Op.LT, Op.EQ)(st.just(Q_), st.just(K_))),
    ),
    world=worlds(),
)
def test_what_a_program_decides_by_floats_joins_what_each_score_decides(
    folder: Path, root: Expr, world: dict[str, Any]
) -> None:
    want = [[expected(root, world, q, k, assume) for k in range(N)] for q in range(N)]
    assert run(root, world, folder) == want


WORLD = {
    "words": {"q_len": 5, "k_len": 7, "heads": 2, "kv_heads": 1, "batch": 1, "head_dim": 16, "v_dim": 16,
              "h": 1, "b": 0},
    "params": {"n": -3, "m": 0, "window": 5, "x": 2.5, "y": -0.75, "p": True, "cap": 50.0, "r": False},
    "sizes": {"extra": 2},
    "inputs": {"doc": [[0, 0, 1, 1, 2, 2, 2]], "tag": [2**40, -5], "slopes": [0.5, 0.25],
               "bias": [[0.5, 1, 2], [3, 4, 5]], "keep": [True, False]},
    "scores": [[0.5, -1.0, 2.0, 3.0]] * N,
}  # fmt: skip


@pytest.mark.parametrize(
    "spec",
    [
        "(q - k) // n", "(q - k) % n", "(k - q) // 2", "(k - q) % 2", "q // m", "q % m", "(q - 2) // (k - 2)",
        "(q - 2) % (k - 2)", "n * 2147483647", "-n * 2147483647 * k", "q * (k // 2)", "q * (k % 3)",
        "q - (k - n)", "doc[b, q + 100]", "doc[b - 5, k - 2]", "doc[9, 9]", "tag[k]", "tag[1]", "tag[k] // n",
        "abs(tag[k]) % 1000", "int(x * float(k))", "int(-x)", "q if q < k else tag[q]",
        "min(q, k) + max(n, k)", "clamp(q - k, -1, 1)", "5000000000 + k",
        "q < 5000000000", "min(k, 5000000000)", "5000000000 if p else 3",
        "(q - k) // 3000000000", "(q - k) % 3000000000", "3000000000 % n", "q // (3000000000 if p else m)",
        "bias[h, 3000000000]", "tag[3000000000]", "max(q, 3000000000) - 3000000000",
    ],
)  # fmt: skip
def test_integers_floor_widen_and_stay_inside_their_inputs(folder: Path, spec: str) -> None:
    root = expr(spec)
    want = [[expected(root, WORLD, q, k) for k in range(N)] for q in range(N)]
    assert run(root, WORLD, folder) == want


@pytest.mark.parametrize(
    ("x", "whole"),
    [
        (2.75, 2),
        (-2.75, -2),
        (3e9, 2**31 - 1),
        (-3e9, -(2**31)),
        (float("nan"), 0),
        (float("inf"), 2**31 - 1),
    ],
)
def test_int_rounds_toward_zero_and_saturates(folder: Path, x: float, whole: int) -> None:
    world = WORLD | {"scores": [[to_float32(x)] * N] * N}
    assert run(make(Op.TO_INT, SCORE), world, folder)[0][0] == whole


@pytest.mark.parametrize("op", [Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.TANH, Op.SIGMOID, Op.SIN, Op.COS])
def test_functions_are_close(folder: Path, op: Op) -> None:
    world = WORLD | {"scores": [[0.01, 0.3, 2.0, 9.0]] * N}
    got = run(make(op, SCORE), world, folder)[0]
    for score, value in zip(world["scores"][0], got, strict=True):
        want = _value(make(op, SCORE), [score], Env())
        assert value == pytest.approx(want, rel=2e-6, abs=1e-7)


# -- the launcher -------------------------------------------------------------------------------------------


def host(root: Expr) -> str:
    names = Names(IR)
    block = Writer(HostExpr(interval_of(root, ir=IR), names), names).results([root])
    return "\n".join([*block.lines, f"value = {block.results[0]}"])


@pytest.mark.parametrize(
    ("spec", "text"),
    [
        ("1.0 / sqrt(float(head_dim))", "1.0 / math.sqrt(q.shape[3])"),
        ("x * (y + cap)", "float32(x) * (float32(y) + float32(cap))"),
        ("x if n < m else y", "float32(x) if n < m else float32(y)"),
        ("n // m", "n // m if m else 0"),
        ("not (p and r)", "not (p and r)"),
        ("inf", 'float("inf")'),
        ("1.0 / x", "(float64(1.0) / float32(x)).item()"),
        ("0.5 * log(x)", "0.5 * float64(float32(x)).log().item()"),
        ("exp(-0.1 * float(head_dim))", "math.exp(-0.1 * q.shape[3])"),
    ],
)
def test_the_launcher_computes_in_python(spec: str, text: str) -> None:
    assert host(expr(spec)) == f"value = {text}"


HOST_LEAVES = {
    Type.INT: [N_, M_, word("k_len"), word("heads"), const(3), const(-2)],
    Type.FLOAT: [X_, param("y", Type.FLOAT), const(0.5), const(-2.0)],
    Type.BOOL: [param("p", Type.BOOL), param("r", Type.BOOL)],
}


@cache
def host_exprs(kind: Type, depth: int = 4) -> st.SearchStrategy[Expr]:
    if depth == 0:
        return st.sampled_from(HOST_LEAVES[kind])
    i, f, b = (host_exprs(t, depth - 1) for t in (Type.INT, Type.FLOAT, Type.BOOL))
    options = {
        Type.INT: [made(Op.ADD, Op.SUB, Op.MUL, Op.MIN, Op.FLOORDIV, Op.MOD)(i, i), made(Op.WHERE)(b, i, i)],
        Type.FLOAT: [made(Op.ADD, Op.SUB, Op.MUL, Op.DIV, Op.MAX)(f, f), made(Op.WHERE)(b, f, f),
                     made(Op.TANH, Op.SIGMOID, Op.NEG, Op.FLOOR)(f), made(Op.TO_FLOAT)(i),
                     made(Op.EXP, Op.LOG, Op.SQRT, Op.RSQRT, Op.SIN)(f)],
        Type.BOOL: [made(Op.LT, Op.EQ)(i, i), made(Op.LE)(f, f), made(Op.AND, Op.OR, Op.NE)(b, b),
                    made(Op.NOT)(b)],
    }[kind]  # fmt: skip
    return st.one_of(st.sampled_from(HOST_LEAVES[kind]), *options)


def float64(x: float) -> torch.Tensor:
    return torch.tensor(x, dtype=torch.float64)


ODD = (0.0, -0.0, 2.5, -1e30, 1e30, math.inf, -math.inf, math.nan)


@settings(max_examples=300)
@given(root=st.sampled_from(SCALARS).flatmap(host_exprs), x=st.sampled_from(ODD), y=st.sampled_from(ODD))
@example(make(Op.MUL, make(Op.FLOORDIV, N_, M_), N_), 0.0, 0.0)
@example(make(Op.LT, make(Op.WHERE, make(Op.LT, N_, M_), N_, M_), N_), 0.0, 0.0)
@example(make(Op.TO_INT, make(Op.MUL, X_, const(-0.5))), math.nan, 0.0)
@example(make(Op.TO_INT, make(Op.DIV, X_, Y_)), 1.0, -0.0)
@example(make(Op.RSQRT, make(Op.EXP, make(Op.LOG, X_))), 0.0, 0.0)
def test_the_launchers_text_has_the_value_of_its_expression(root: Expr, x: float, y: float) -> None:
    """IEEE's, where Python's own functions raise, too."""
    params = WORLD["params"] | {"x": to_float32(x), "y": to_float32(y)}
    env = Env(WORLD["words"], params)
    values: dict[Expr, Scalar] = {}
    for node in postorder(root):
        args = [values[a] for a in node.args]
        if node.op in (Op.FLOOR, Op.LE):
            assume(all(a != a or to_float32(float(a)) == a for a in args))
        if node.op in (Op.MIN, Op.MAX):
            assume(not any(map(math.isnan, args)))  # either will do
        if node.op is Op.DIV:
            assume(args[1] != 0 or node.args[1] in (X_, Y_))  # the sign of another zero is nobody's promise
        values[node] = _value(node, args, env)
    scope: dict[str, Any] = {**params, "float32": to_float32, "float64": float64, "math": math}
    scope |= {"q": torch.empty(1, 2, 5, 16), "k": torch.empty(1, 1, 7, 16)}
    exec(host(root), scope)
    assert scope["value"] == pytest.approx(values[root], rel=1e-12, nan_ok=True)
