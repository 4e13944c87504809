"""Signatures and calls that hold an item a line get a line a kind of item; the code stays the same."""

from __future__ import annotations

import ast
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st

from attngen.emit.packed import packed
from attngen.emit.prose import WIDTH

TENSORS = st.sampled_from(["Q", "Lse2", "DOut", "RowMax"])
STRIDES = st.sampled_from(["q_strides", "d_out_strides"])
NUMBERS = st.sampled_from(["heads", "q_len", "slopes_ptr", "doc_stride_0"])
CONSTANTS = st.sampled_from(["BLOCK_M: tl.constexpr", "EXACT: gl.constexpr"])
KINDS = (TENSORS, STRIDES, NUMBERS, CONSTANTS)


def numbered(items: list[str]) -> list[str]:
    """The items with names that differ; their kinds stay."""
    return [f"{item[:1]}{n}{item[1:]}" for n, item in enumerate(items)]


def opened(head: str, items: list[str], tail: str, indent: str = "") -> str:
    return "\n".join([f"{indent}{head}(", *(f"{indent}    {item}," for item in items), f"{indent}){tail}"])


@given(st.tuples(*(st.lists(kind, max_size=12) for kind in KINDS)).map(lambda x: list(chain(*x))))
def test_a_signature_keeps_its_parameters_and_no_line_of_a_long_one_mixes_kinds(items: list[str]) -> None:
    items = numbered(items)
    text = opened("def kernel", items, ":") + "\n    pass" if items else "def kernel():\n    pass"
    got = packed(text)
    assert ast.dump(ast.parse(got)) == ast.dump(ast.parse(text))
    lines = got.split("\n")
    assert max(map(len, lines)) <= WIDTH
    assert packed(got) == got
    if len(lines) > 4:  # more than fits one line in the brackets

        def kind(item: str) -> str:
            if "constexpr" in item:
                return "constant"
            return "tensor" if item[0].isupper() else "strides" if item.endswith("_strides") else "number"

        for line in lines[1:-2]:
            assert len({kind(item.strip()) for item in line.split(",") if item.strip()}) == 1


@given(st.lists(st.sampled_from(["dk", "(q_len, k_len)", "f(x, y)", "*own", "True", "BLOCK_M"]), min_size=1))
def test_a_call_keeps_its_arguments(items: list[str]) -> None:
    for named in ([], ["num_warps=4", "**constants"]):
        text = opened("state = accumulate", [*items, *named], "", "    ")
        got = packed(f"if x:\n{text}")
        assert ast.dump(ast.parse(got)) == ast.dump(ast.parse(f"if x:\n{text}"))
        assert packed(got) == got


def test_a_launch_begins_with_its_kernel_and_grid_and_ends_with_its_constants() -> None:
    items = ["some_kernel", "(tiles,)", *(f"argument_{n}" for n in range(8)), "BLOCK_M=64", "num_warps=4"]
    assert packed(opened("launcher.launch", items, "")).split("\n") == [
        "launcher.launch(",
        "    some_kernel, (tiles,),",
        f"    {', '.join(items[2:10])},",
        "    BLOCK_M=64, num_warps=4,",
        ")",
    ]


def test_the_constants_that_a_call_ends_with_have_a_line() -> None:
    items = [*(f"argument_{n}" for n in range(7)), "True", "argument", "False", "HEAD_DIM", "PRECISION"]
    assert packed(opened("f", items, "")).split("\n")[1:-1] == [
        f"    {', '.join(items[:9])},",
        "    False, HEAD_DIM, PRECISION,",
    ]


def test_what_fits_one_line_is_on_one() -> None:
    assert packed(opened("x = f", ["a", "b=1"], " + 1")) == "x = f(a, b=1) + 1"


@pytest.mark.parametrize(
    "text",
    [
        "f(\n    a,  # a remark\n    b,\n)",
        'raise ValueError(\n    f"one "\n    f"two"\n)',
        "f(\n    [\n        a,\n    ],\n)",
        '"""A text:\nf(\n    a,\n    b,\n)\n"""',
        "# f(\n#     a,\n# )",
        "x = (\n    a,\n)",
    ],
)
def test_other_brackets_stay(text: str) -> None:
    assert packed(text) == text
