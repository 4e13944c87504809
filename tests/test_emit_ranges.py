"""What the emitted functions of the loops' bounds say of themselves is what they take and give."""

from __future__ import annotations

import ast

import pytest
from kernel_calls import variant_of

LENGTHS = "input used: int32[batch]"
MASKS = [
    "mask = sliding_window(300)",
    "mask = causal and (dist < 1000 or k < 4)",
    "mask = k < used[b]",
    "mask = dist < 50",
    "mask = q % 3 == k % 3",
]


def functions(source: str) -> list[ast.FunctionDef]:
    """``key_range`` and ``query_range``."""
    found = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef)]
    return [n for n in found if n.name in ("key_range", "query_range")]


@pytest.mark.parametrize("mask", MASKS)
def test_the_docstring_of_a_range_names_arguments_and_what_it_returns(mask: str) -> None:
    for function in functions(variant_of(LENGTHS, mask).source):
        doc = ast.get_docstring(function) or ""
        arguments = {a.arg for a in function.args.args}
        corners = {f"{axis}_{end}" for axis in "qk" for end in ("first", "last")}
        assert {c for c in corners if c in doc} == corners & arguments
        returned = function.body[-1]
        assert isinstance(returned, ast.Return) and isinstance(returned.value, ast.Tuple)
        first, *_ = parts = returned.value.elts
        if isinstance(first, ast.Tuple):
            assert {len(part.elts) for part in parts if isinstance(part, ast.Tuple)} == {len(first.elts)}
            assert f"each {'(lo, hi)' if len(first.elts) == 2 else '(lo, hi, gaps)'}." in doc
        else:
            assert f"as {'(lo, hi)' if len(parts) == 2 else '(lo, hi, gaps)'}." in doc
