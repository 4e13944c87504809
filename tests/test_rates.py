"""How often a value changes decides where a kernel computes it."""

from __future__ import annotations

import pytest
from ir_text import expr

from attngen.analysis.rates import Rate, join, rate_of, rates


@pytest.mark.parametrize(
    ("text", "rate"),
    [
        ("n + 1", Rate.LAUNCH),
        ("1.0 / sqrt(float(head_dim))", Rate.LAUNCH),
        ("k_len - q_len", Rate.LAUNCH),
        ("h % 2", Rate.PROGRAM),
        ("slopes[h] * x", Rate.PROGRAM),
        ("lens[0]", Rate.PROGRAM),  # at a constant index, but still a read from memory
        ("q_last + 1", Rate.PROGRAM),
        ("q % 64", Rate.ROW),
        ("lens[pos] + h", Rate.ROW),
        ("k // 64", Rate.COLUMN),
        ("bias[b, k]", Rate.COLUMN),
        ("dist", Rate.TILE),
        ("lens[q] < lens[k]", Rate.TILE),
        ("score", Rate.TILE),
    ],
)
def test_rate(text: str, rate: Rate) -> None:
    assert rate_of(expr(text)) is rate


def test_parts_keep_their_own_rate() -> None:
    root = expr("slopes[h] * float(abs(q - k))")
    found = rates(root)
    assert found[root] is Rate.TILE
    assert found[expr("slopes[h]")] is Rate.PROGRAM
    assert found[expr("q")] is Rate.ROW


def test_a_row_and_a_column_make_a_tile() -> None:
    assert join(Rate.ROW, Rate.COLUMN) is Rate.TILE
    assert all(join(rate, Rate.LAUNCH) is rate and join(rate, rate) is rate for rate in Rate)
