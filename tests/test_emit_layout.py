"""Wide lines are opened at their brackets; the code stays the same."""

from __future__ import annotations

import ast

import pytest

from attngen.emit.layout import fitted
from attngen.emit.prose import WIDTH

NAMES = ", ".join(f"argument_{n}" for n in range(12))


@pytest.mark.parametrize(
    "text",
    [
        f"x = f({NAMES})",
        f"def f({NAMES}):\n    return argument_1",
        f"    x = f(\n        {NAMES}\n    )".replace("    x", "if y:\n    x"),
        f"x = g(y, h({NAMES})) + 1",
        f'x = f("a, b) (", {NAMES}, key="(")',
        f"x, y = f({NAMES}, *rest, key=[1, (2, 3)])",
        f"x = ({NAMES})",
        f"x = [{NAMES}]",
        f"{NAMES} = context",
        f"x = g(y, {NAMES.replace(', ', ' + ')} * f(1 + 2), z)",
    ],
)
def test_wide_code_is_opened_and_means_the_same(text: str) -> None:
    opened = fitted(text)
    assert max(map(len, opened.split("\n"))) <= WIDTH < max(map(len, text.split("\n")))
    assert ast.dump(ast.parse(opened)) == ast.dump(ast.parse(text))


@pytest.mark.parametrize(
    "text",
    [
        "x = f(a, b)",
        f"# x = f({NAMES})",
        f'def f():\n    """Calls g({NAMES})\n    and h({NAMES}).\n    """',
        f"x = g[{NAMES}]",
    ],
)
def test_other_lines_stay(text: str) -> None:
    assert fitted(text) == text


def test_arguments_that_fit_one_line_share_it() -> None:
    arguments = ", ".join(f"argument_{n}" for n in range(7))
    assert fitted(f"a_rather_long_name = another_rather_long_function_name({arguments})").split("\n") == [
        "a_rather_long_name = another_rather_long_function_name(",
        f"    {arguments}",
        ")",
    ]
