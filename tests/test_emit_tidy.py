"""What templates leave behind is tidied, and the code stays the same."""

from __future__ import annotations

import ast

import pytest

from attngen.emit.prose import WIDTH
from attngen.emit.tidy import tidied


@pytest.mark.parametrize(
    ("given", "wanted"),
    [
        ("x, = own", "(x,) = own"),
        ('def f():\n    """One line.\n    """\n    return 1', 'def f():\n    """One line."""\n    return 1'),
        ("x = f(\n    a, b\n)", "x = f(a, b)"),
        ("def f(\n    a, b\n):\n    return a", "def f(a, b):\n    return a"),
        ("INPUTS = (\n    ('x', int, ('heads',)),\n)", "INPUTS = (('x', int, ('heads',)),)"),
        ("def f():\n    return 1\n\n# ---- Launch\n", "def f():\n    return 1\n\n\n# ---- Launch"),
        ("x = 1 \n\n\n\n\ny = 2\n\n\n", "x = 1\n\n\ny = 2"),
    ],
)
def test_what_templates_leave_behind_is_written_as_by_hand(given: str, wanted: str) -> None:
    assert tidied(given) == wanted + "\n"
    assert tidied(wanted) == wanted + "\n"


@pytest.mark.parametrize(
    "text",
    [
        "x = f(\n    a,\n    b,\n)",
        "x = (\n    a,\n    b,\n)",
        "x = f(\n    a,\n)",
        f"x = f(\n    {'a' * (WIDTH - 6)}\n)",
        "x = f(  # why\n    a\n)",
        "x = f(\n    a  # why\n)",
        'def f():\n    """Two\n\n    lines.\n    """',
        'def f():\n    """As in\n\n    f(\n        a\n    )\n    """',
        "# as f(\n#     a\n# )",
        "x = (\n    a\n    + b\n)",
    ],
)
def test_other_text_stays(text: str) -> None:
    assert tidied(text) == text + "\n"
    ast.parse(text)
