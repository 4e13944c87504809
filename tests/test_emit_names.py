"""Whatever the spec calls things, the module works: names of its own give way, or the spec is refused."""

from __future__ import annotations

import ast
import builtins
import keyword
import re
import symtable
from functools import cache

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from ir_eval import to_float32
from ir_text import expr

import attngen
from attngen.emit.names import FUNCTIONS, HELPERS, Names
from attngen.emit.render import template_texts
from attngen.emit.variant_name import names_read
from attngen.errors import AttnGenError, SpecNameError
from attngen.ir.build import prelude
from attngen.ir.nodes import AttentionIR, Input, Op, Param, const, make, param
from attngen.ir.scope import CALL_NAMES, LOAD_NAMES, reserved
from attngen.ir.types import Type
from attngen.pipeline import compile_spec
from attngen.source import Source

SPEC = """variant {variant}
param {param}: float = 0.5
input {input}: float32[heads]
input {other}: int32[{size}]
let {let} = {input}[h] * abs(dist)
score = tanh(score) - {param} * {let} - {let} * {let}
mask = causal and {other}[k] < (k // 3 % {size}) + 2
"""
PLAIN = {
    "variant": "plain",
    "param": "cap",
    "input": "slopes",
    "other": "tag",
    "size": "count",
    "let": "bend",
}


def usable(name: str) -> bool:
    return reserved(name) is None and name not in CALL_NAMES | LOAD_NAMES


@cache
def module_names() -> list[str]:
    """Every name in the templates and in a module made of them, and near misses of those."""
    text = compile_spec(Source(SPEC.format(**PLAIN), "s")).text
    found = {w for t in (*template_texts(), text) for w in re.findall(r"[A-Za-z_][A-Za-z0-9_]*", t)}
    found |= {*FUNCTIONS, *HELPERS, *dir(builtins), *keyword.softkwlist, "self", "Tensor", "float32", "args"}
    found |= {f"{n}_" for n in ("acc", "slopes", "tl", "weights")} | {f"{n}_ptr" for n in ("slopes", "tag")}
    found |= {"slopes_stride_0", "slopes_h", "scale_log2", "cap_log2", "count_", "offset", "total", "dist_"}
    return sorted(n for n in found if usable(n) and n not in prelude())


def clashes(text: str) -> set[str]:
    """Functions that some function of the module calls under a name that is also a local of its own."""
    tree = ast.parse(text)
    functions = {n.name for n in tree.body if isinstance(n, ast.FunctionDef)}
    variant = [n.name for n in tree.body if isinstance(n, ast.FunctionDef)][-1]
    found = set()
    for scope in symtable.symtable(text, "m", "exec").get_children():
        if scope.get_name() == variant:
            continue
        found |= {s.get_name() for s in scope.get_symbols() if s.is_local()} & functions
    return found - {"_", "plain"}  # nobody calls the fakes' ``_``; the variant's own is checked apart


def test_the_plain_module_has_no_clash() -> None:
    assert clashes(compile_spec(Source(SPEC.format(**PLAIN), "s")).text) == set()


@settings(max_examples=20)
@given(st.data())
def test_any_names_give_a_module_whose_locals_hide_no_function(data: st.DataObject) -> None:
    drawn = data.draw(st.lists(st.sampled_from(module_names()), min_size=5, max_size=5, unique=True))
    names = dict(zip(("param", "input", "other", "size", "let"), drawn, strict=True))
    text = compile_spec(Source(SPEC.format(variant="plain", **names), "s")).text
    compile(text, "module", "exec")
    assert clashes(text) == set()
    signature = next(n for n in ast.parse(text).body[::-1] if isinstance(n, ast.FunctionDef))
    public = [a.arg for a in signature.args.kwonlyargs]
    assert public[:3] == [names["input"], names["other"], names["param"]]


def works(names: dict[str, str]) -> None:
    """Build the spec under these names, and compare a call with the same maths under plain ones."""
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, 5, 16, requires_grad=True) for _ in range(3))
    slopes, tag = torch.rand(2), torch.tensor([0, 1, 1, 2, 0], dtype=torch.int32)

    def result(names: dict[str, str]) -> list[torch.Tensor]:
        variant = attngen.compile(SPEC.format(**names))
        given = {names["input"]: slopes, names["other"]: tag, names["param"]: 0.25}
        out = variant(q, k, v, **given)
        return [out, *torch.autograd.grad(out.sum(), (q, k, v))]

    for mine, plain in zip(result(names), result(PLAIN), strict=True):
        torch.testing.assert_close(mine, plain)


@pytest.mark.parametrize(
    "names",
    [
        {"input": "acc", "other": "acc_", "param": "tl", "let": "weights", "size": "lo"},
        {"input": "a", "other": "a_ptr", "param": "a_stride_0", "let": "a_", "size": "a_ptr_"},
        {"input": "a_ptr", "other": "a", "param": "torch", "let": "logits", "size": "triton"},
        {"input": "exponent", "other": "q_first", "param": "state", "let": "keeps", "size": "math"},
        {"input": "row_max", "other": "INPUTS", "param": "forward_kernel", "let": "key_range", "size": "lse"},
        {"input": "maths", "other": "Tensor", "param": "run_attention", "let": "check", "size": "float32"},
        {"input": "values", "other": "params", "param": "inputs", "let": "x", "size": "name"},
        {"input": "_", "other": "_0", "param": "bshd", "let": "floor_divide", "size": "out"},
        {"param": "lse", "input": "ctx", "other": "grad", "let": "offset", "size": "device"},
        {"variant": "logits"}, {"variant": "keeps"}, {"variant": "run_attention"}, {"variant": "key_range"},
        {"variant": "slopes"}, {"variant": "acc"}, {"variant": "q"}, {"variant": "_"}, {"variant": "print"},
        {"variant": "slopes_ptr", "input": "slopes"}, {"variant": "truncate"}, {"variant": "scale_log2"},
    ],
    ids=lambda names: "-".join(names.values()),
)  # fmt: skip
def test_a_module_works_under_the_modules_own_names(names: dict[str, str]) -> None:
    works(PLAIN | names)


@settings(max_examples=8)
@given(st.sampled_from(module_names()))
@example("save_for_backward")
@example("backward")
@example("NAMESPACE")
def test_a_variants_name_works_or_is_refused_where_it_stands(name: str) -> None:
    names = PLAIN | {"variant": name}
    try:
        compile_spec(Source(SPEC.format(**names), "s.attn"))
    except AttnGenError as error:
        assert isinstance(error, SpecNameError)
        assert (error.line, error.column) == (1, 9)
        assert name in str(error)
        return
    works(names)


@pytest.mark.parametrize(
    "name", ["torch", "triton", "tl", "math", "check", "forward_kernel", "TILES", "tuple"]
)
def test_a_name_that_the_module_reads_is_refused(name: str) -> None:
    spec = f"variant {name}\nscore = tanh(score)\n"
    with pytest.raises(SpecNameError, match=f"s.attn:1:9: error: the emitted module needs the name '{name}'"):
        compile_spec(Source(spec, "s.attn"))


def test_names_read_are_the_globals_of_functions_only() -> None:
    text = "import a\nimport b\nc = b.x\ndef f(d):\n    e = a.y + len(d)\n    return [g for g in e]\n"
    assert names_read(text) == {"a", "len"}


def test_a_taken_name_gets_the_nearest_free_one() -> None:
    names = Names(AttentionIR("x", const(1.0), params=(Param("acc", Type.FLOAT),)), ["acc = acc_ + acc_2"])
    assert names.own("acc") == "acc_3"
    assert [names.fresh("n") for _ in range(3)] == ["n", "n_", "n_2"]


def test_an_input_takes_its_pointers_and_strides_names_too() -> None:
    ir = AttentionIR("x", const(1.0), inputs=(Input("t", "int32", ("heads",)),))
    names = Names(ir, ["t_stride_0"])
    assert names.own("t") == "t_input"
    assert names.fresh("t_input_ptr") == "t_input_ptr_"


@pytest.mark.parametrize(
    ("root", "name"),
    [
        ("0 < n", "n_above_0"),
        ("3 <= k", "k_from_3"),
        ("max(n, 1)", "n_at_least_1"),
        ("q_last + (k_len - q_len) + 1", "last_pos_plus_1"),
        ("k_first // n * n", "k_first_rounded_down"),
        ("k < n and k < m", "k_below_n_and_k_below_m"),
        ("min(n * m + q, k_len // 3 - 2 * q_len)", "smaller"),
    ],
)
def test_a_small_expression_is_read_aloud(root: str, name: str) -> None:
    assert Names(AttentionIR("x", const(1.0))).part(expr(root)) == name


def test_many_values_of_one_kind_are_named_in_linear_time() -> None:
    names = Names(AttentionIR("x", const(1.0)))
    x = param("x", Type.FLOAT)
    parts = {names.part(make(Op.ADD, make(Op.SIN, x), const(to_float32(i + 0.5)))) for i in range(20_000)}
    assert len(parts) == 20_000
