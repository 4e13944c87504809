"""What leaves the inner loop, as text pairs."""

from __future__ import annotations

import pytest
from ir_text import expr, pairs

from attngen.analysis.rates import Rate, rate_of
from attngen.ir.nodes import Expr, Op, const, make, param, postorder, word
from attngen.ir.types import Type
from attngen.plan.hoist import hoist


def parsed(parts: str) -> set[Expr]:
    """The expressions of ``a, b`` (commas inside brackets do not separate)."""
    found, depth, start = [], 0, 0
    for place, character in enumerate(parts + ","):
        depth += (character in "([") - (character in ")]")
        if character == "," and depth == 0:
            found.append(parts[start:place])
            start = place + 1
    return {expr(part) for part in found if part.strip() != "-"}


@pytest.mark.parametrize(("before", "after"), list(pairs("hoist", "parts.txt")))
def test_parts_leave_the_loop(before: str, after: str) -> None:
    found = hoist(expr(before))
    program, row, column = map(parsed, after.split(" | "))
    assert set(found.program) == program
    assert set(found.row) == row
    assert set(found.column) == column


def test_a_part_stands_after_the_parts_it_is_made_of() -> None:
    found = hoist(expr("k < lens[b] * n and q < lens[b] * n + lens[h]"), expr("score * float(lens[b])"))
    for parts in (found.program, found.row, found.column):
        for number, part in enumerate(parts):
            assert not any(part in postorder(earlier) for earlier in parts[:number])


def test_hoisted_parts_change_less_often_than_scores() -> None:
    found = hoist(expr("score + slopes[h] * float(q % 3 * (k % 5)) + x * y"))
    assert all(rate_of(part) <= Rate.PROGRAM for part in found.program)
    assert all(rate_of(part) is Rate.ROW for part in found.row)
    assert all(rate_of(part) is Rate.COLUMN for part in found.column)


def test_deep_expressions_hoist_without_recursion() -> None:
    row, column = word("q"), word("k")
    for n in range(2000):
        row = make(Op.MOD, make(Op.ADD, row, const(n)), param("n", Type.INT))
        column = make(Op.ADD, column, const(n))
    found = hoist(make(Op.LT, row, column))
    assert found.row == (row,)
    assert found.column == (column,)
