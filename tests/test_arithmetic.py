"""What the plan decides of numbers: widths, clamps, and which operations round alone."""

from __future__ import annotations

import pytest
from ir_text import expr

from attngen.ir.nodes import AttentionIR, Expr, Input, const
from attngen.plan.arithmetic import Arithmetic, arithmetic

IR = AttentionIR(
    "v", const(1.0), inputs=(Input("lens", "int32", ("batch",)), Input("far", "int64", ("batch",)))
)


def of(text: str) -> tuple[Expr, Arithmetic]:
    node = expr(text)
    return node, arithmetic(node, ir=IR)


@pytest.mark.parametrize(
    ("text", "wide"),
    [
        ("pos - k", False),
        ("q * k", True),
        ("n + 1", True),
        ("lens[b]", False),
        ("far[b]", True),
        ("min(far[b], 7)", True),  # computed where it is read, in 64 bits
        ("int(float(far[b]))", False),
        ("2147483648", True),
    ],
)
def test_an_int_is_wide_where_it_may_pass_int32_or_comes_from_what_may(text: str, wide: bool) -> None:
    node, found = of(text)
    assert (node in found.wide) is wide


def test_an_index_is_clamped_on_the_sides_that_it_may_pass() -> None:
    for text, dim, below, above in [
        ("clamp(dist, 0, 31)", 32, False, False),
        ("min(dist, 31)", 32, True, False),
        ("abs(dist)", 32, False, True),
        ("pos", "k_len", True, False),
        ("h", "heads", False, False),
        ("h", "kv_heads", False, True),
    ]:
        index, found = of(text)
        assert (not found.starts_inside(index), not found.ends_inside(index, dim)) == (below, above), text


def test_division_is_plain_where_nothing_is_negative_and_the_divisor_is_not_0() -> None:
    for text, plain in [("q // 3", True), ("dist // 3", False), ("q // n", False), ("q % max(n, 1)", True)]:
        node, found = of(text)
        assert found.divides_plainly(node) is plain, text
