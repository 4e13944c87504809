"""No emitted module holds what it does not use: parameters, values, functions, constants, imports."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

import pytest

from attngen.pipeline import compile_spec
from attngen.spec_file import find_spec, zoo_names

# Every kind of kernel and launcher: both back ends, tables, dense inputs, documents, dropout, factors, two
# passes, sinks, and a look at the mask. The others run with the slow tests.
SAMPLE = (
    "causal",
    "softcap",
    "dropped",
    "alibi_documents",
    "dense_bias",
    "t5",
    "moba",
    "mla_rope",
    "gpt_oss",
)

# Functions that share a signature with others, and why.
SHARED = {
    "_": "torch calls the fake of an operator with all that the operator takes",
    "refuse_second": "torch calls the formula of an operator with its context and gradients",
    "save_for_backward": "torch calls it with the context, the inputs and the outputs",
    "forward_operator": "its arguments are what its backward gets to see",
    "forward": "Call.forward takes what forward_operator does",
    "launch_backward": "takes all that the operator saved",
    r"\w+_kernel": "every kernel takes the sizes and the variant's own arguments, in one order",
    r"spread_\w+": "is a kernel",
}


def unused(text: str) -> Iterator[str]:
    """What a module defines and never reads; names that begin with an underscore say that they are not."""
    module = ast.parse(text)
    nodes = list(ast.walk(module))
    read = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    read |= {n.attr for n in nodes if isinstance(n, ast.Attribute)}
    defined = {n.name for n in nodes if isinstance(n, ast.FunctionDef | ast.ClassDef)}
    defined |= {
        x for statement in module.body if isinstance(statement, ast.Assign) for x in stored(statement)
    }
    for statement in module.body:
        if isinstance(statement, ast.Import | ast.ImportFrom):
            defined |= {(a.asname or a.name).split(".")[0] for a in statement.names}
    yield from sorted(name for name in defined - read if not name.startswith("_"))
    for function in (n for n in nodes if isinstance(n, ast.FunctionDef)):
        inside = [n for statement in function.body for n in ast.walk(statement)]
        read = {n.id for n in inside if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
        names = {x for statement in function.body for x in stored(statement)}
        if not any(re.fullmatch(shared, function.name) for shared in SHARED):
            names |= {n.arg for n in ast.walk(function.args) if isinstance(n, ast.arg)} - {"self"}
        yield from sorted(f"{function.name}: {x}" for x in names - read if not x.startswith("_"))


def stored(node: ast.AST) -> set[str]:
    return {n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}


def of_module(name: str) -> list[str]:
    """The call itself is what a module is for."""
    return [found for found in unused(compile_spec(find_spec(name)).text) if found != name]


@pytest.mark.parametrize("name", SAMPLE)
def test_an_emitted_module_uses_all_that_it_defines(name: str) -> None:
    assert of_module(name) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", [n for n in zoo_names() if n not in SAMPLE])
def test_every_emitted_module_of_the_zoo_uses_all_that_it_defines(name: str) -> None:
    assert of_module(name) == []


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("import math", ["math"]),
        ("from a import b as c, d\nd()", ["c"]),
        ("LIMIT = 3", ["LIMIT"]),
        ("def f():\n    pass", ["f"]),
        ("class A:\n    def run(self):\n        pass\nA()", ["run"]),
        ("def f(x, *y, z=1, **w):\n    return x\nf(1)", ["f: w", "f: y", "f: z"]),
        ("def f(x):\n    a, b = x\n    return a\nf(1)", ["f: b"]),
        ("def f(x):\n    a, _ = x\n    return a\nf(1)", []),
        ("def some_kernel(x):\n    n = 1\nsome_kernel(1)", ["some_kernel: n"]),
    ],
)
def test_what_is_unused_is_found(text: str, found: list[str]) -> None:
    assert list(unused(text)) == found
