"""Loop bounds: what is visited holds every kept key, what is called certain needs no mask."""

from __future__ import annotations

import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ir_eval import Env, evaluate
from ir_text import FIXTURES, expr, show

from attngen.analysis.block_range import Bound, Range, key_ranges, query_ranges
from attngen.ir.nodes import FALSE, TRUE, Expr, Input, Op, const, load, make, param, postorder, word
from attngen.ir.types import Type

INPUTS = (
    Input("doc", "int32", ("batch", "k_len"), sorted=True),
    Input("part", "int32", ("q_len",), sorted=True),
    Input("short", "int32", (3,), sorted=True),
    Input("lens", "int32", ("extra",)),
    Input("rows", "int32", ("q_len",)),
    Input("far", "int64", ("batch",)),
    Input("keep", "bool", ("heads",)),
)


def cases() -> list[tuple[str, dict[str, str]]]:
    """The masks of the fixture file, each with its four expected intervals."""
    found = []
    for block in (FIXTURES / "ranges" / "masks.txt").read_text(encoding="utf-8").split("\n\n"):
        lines = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith("#"))
        if lines:
            found.append((lines.pop("mask"), lines))
    return found


def text(bound: Bound | None) -> str:
    return "None" if bound is None else f"[{show(bound.lo)}; {show(bound.hi)}]"


def normal(expected: str) -> str:
    """The same text with the parentheses that ``show`` writes."""
    if expected == "None":
        return expected
    ends = expected[1:-1].split("; ")
    return f"[{'; '.join(end if end == 'None' else show(expr(end)) for end in ends)}]"


@pytest.mark.parametrize(("mask", "expected"), cases(), ids=[mask for mask, _ in cases()])
def test_bounds_read_as_written_down(mask: str, expected: dict[str, str]) -> None:
    keys, queries = key_ranges(expr(mask), INPUTS), query_ranges(expr(mask), INPUTS)
    got = {
        "keys possible": [text(r.possible) for r in keys],
        "keys certain": [text(r.certain) for r in keys],
        "queries possible": [text(r.possible) for r in queries],
        "queries certain": [text(r.certain) for r in queries],
    }
    assert got == {name: [normal(one) for one in value.split(" | ")] for name, value in expected.items()}


# Brute force. A place is a call (lengths, params, inputs) and one tile of it.


def _rising(length: int, seed: int) -> list[int]:
    """Sorted numbers with repeats, other ones for each seed."""
    step = 1 + seed % 4
    return [(at + seed) // step for at in range(length)]


class Call:
    """Lengths and scalars, and whether each score is kept, computed one by one."""

    def __init__(self, mask: Expr, q_len: int, k_len: int, scalars: dict[str, int]) -> None:
        self.q_len, self.k_len = q_len, k_len
        words = {"b": scalars["b"], "h": scalars["h"], "h_kv": scalars["h"] // 2}
        self.words = {**words, "q_len": q_len, "k_len": k_len, "heads": 4, "kv_heads": 2, "batch": 2}
        self.env = {
            "params": {
                "n": scalars["n"],
                "m": scalars["m"],
                "window": scalars["n"],
                "p": scalars["m"] > 0,
                "r": scalars["n"] % 2 == 0,
                "x": scalars["n"] / 2,
            },
            "inputs": {
                "lens": [scalars["m"], 3, 7, 0],
                "rows": [2, 5, 1, 9, 4],
                "keep": [True, False],
                "doc": [_rising(k_len, scalars["n"] + row) for row in range(2)],
                "part": _rising(q_len, scalars["m"]),
                "short": [-1, 2, 2],
                "far": [scalars.get("far", 0), scalars.get("farther", 0)],
            },
            "wraps": True,
        }
        self.kept = [[self.value(mask, q=q, k=k) for k in range(k_len)] for q in range(q_len)]

    def value(self, node: Expr, **words: int) -> int | bool | float:
        return evaluate(node, Env(words={**self.words, **words}, **self.env))

    def clamp(self, bound: Bound, length: int, **corners: int) -> range:
        lo = int(self.value(bound.lo, **corners)) if bound.lo else 0
        hi = int(self.value(bound.hi, **corners)) if bound.hi else length
        return range(max(lo, 0), max(min(hi, length), max(lo, 0)))


def check(mask: Expr, call: Call, tile: int, *, exact: bool = False) -> None:
    """Both directions, every tile of ``tile`` positions (the last one ragged)."""
    for axis, ranges, length, other, kept in (
        ("q", key_ranges(mask, INPUTS), call.q_len, call.k_len, lambda row, key: call.kept[row][key]),
        ("k", query_ranges(mask, INPUTS), call.k_len, call.q_len, lambda key, row: call.kept[row][key]),
    ):
        for first in range(0, length, tile):
            last = min(first + tile, length) - 1
            rows = range(first, last + 1)
            corners = {f"{axis}_first": first, f"{axis}_last": last}
            some = [x for x in range(other) if any(kept(row, x) for row in rows)]
            every = [x for x in range(other) if all(kept(row, x) for row in rows)]
            visited = [set(call.clamp(r.possible, other, **corners)) for r in ranges]
            full = [set(call.clamp(r.certain, other, **corners)) for r in ranges if r.certain]
            assert set(some) <= set().union(*visited), f"a kept one is not visited at {corners}"
            assert set().union(*full) <= set(every), f"a certain one is masked at {corners}"
            if len(ranges) == 1:
                assert all(f <= v for f, v in zip(full, visited, strict=False)), "certain outside of possible"
            if exact:
                assert sorted(set().union(*visited)) == some
                assert sorted(set().union(*full)) == every


SCALARS = {"b": st.integers(0, 1), "h": st.integers(0, 3), "n": st.integers(-3, 6), "m": st.integers(-2, 9)}
LENGTHS = st.integers(1, 11)

Q, K, POS, B, H = (word(name) for name in ("q", "k", "pos", "b", "h"))
DIST = make(Op.SUB, POS, K)
POSITION = st.sampled_from([Q, K, POS, DIST, make(Op.SUB, Q, K)])
SCALAR = st.one_of(
    st.integers(-3, 9).map(const),
    st.sampled_from([param("n", Type.INT), param("m", Type.INT), load("lens", Type.INT, (B,)), H]),
    st.sampled_from(
        [word("k_len"), word("q_len"), load("rows", Type.INT, (Q,)), load("lens", Type.INT, (K,))]
    ),
    st.sampled_from(
        [
            load("doc", Type.INT, (B, K)),
            load("doc", Type.INT, (B, POS)),
            load("part", Type.INT, (Q,)),
            load("part", Type.INT, (make(Op.ADD, Q, const(1)),)),
            load("short", Type.INT, (make(Op.FLOORDIV, K, const(2)),)),
        ]
    ),
)
DIVISOR = st.integers(-3, 4).map(const) | st.just(param("n", Type.INT))


def _grow_int(inner: st.SearchStrategy[Expr]) -> st.SearchStrategy[Expr]:
    two = st.sampled_from([Op.ADD, Op.SUB, Op.MIN, Op.MAX])
    return st.one_of(
        st.builds(make, two, inner, inner),
        st.builds(make, st.sampled_from([Op.NEG, Op.ABS]), inner),
        st.builds(make, st.sampled_from([Op.FLOORDIV, Op.MOD, Op.MUL]), inner, DIVISOR),
        st.builds(make, st.just(Op.MUL), SCALAR, inner),
        st.builds(make, st.just(Op.CLAMP), inner, SCALAR, SCALAR),
        st.builds(lambda x, y, c: make(Op.WHERE, make(Op.LT, x, c), x, y), inner, inner, SCALAR),
        st.builds(lambda x: make(Op.TO_INT, make(Op.TO_FLOAT, x)), inner),
    )


INTS = st.recursive(POSITION | SCALAR, _grow_int, max_leaves=4)
COMPARISON = st.builds(
    lambda op, x, y, swap: make(op, *((y, x) if swap else (x, y))),
    st.sampled_from([Op.LT, Op.LE, Op.LE, Op.EQ, Op.NE]),
    INTS,
    SCALAR | INTS,
    st.booleans(),
)
ATOM = st.one_of(
    COMPARISON,
    COMPARISON,
    st.builds(lambda x: make(Op.LT, make(Op.TO_FLOAT, x), param("x", Type.FLOAT)), INTS),
    st.sampled_from([TRUE, FALSE, param("p", Type.BOOL), load("keep", Type.BOOL, (H,))]),
)
MASKS = st.recursive(
    ATOM,
    lambda inner: st.one_of(
        st.builds(make, st.sampled_from([Op.AND, Op.OR, Op.AND, Op.OR, Op.EQ, Op.NE]), inner, inner),
        st.builds(make, st.just(Op.NOT), inner),
        st.builds(make, st.just(Op.WHERE), inner, inner, inner),
    ),
    max_leaves=5,
)


@settings(max_examples=400, deadline=None)
@given(MASKS, LENGTHS, LENGTHS, st.integers(1, 5), st.fixed_dictionaries(SCALARS))
def test_no_mask_loses_a_key_or_calls_a_masked_one_certain(
    mask: Expr, q_len: int, k_len: int, tile: int, scalars: dict[str, int]
) -> None:
    check(mask, Call(mask, q_len, k_len, scalars), tile)


_32, _64 = 2**31, 2**63
SMALL = st.integers(-3, 9)
EXTREME_32 = SMALL | st.sampled_from([-_32, -_32 + 1, -_32 + 5, _32 - 6, _32 - 2, _32 - 1])
EXTREME_64 = EXTREME_32 | st.sampled_from(
    [-_64, -_64 + 1, -_64 + 5, -(2**62) - 1, -(2**62), 2**62 - 1, 2**62, _64 - 6, _64 - 2, _64 - 1]
)
EXTREMES = SCALARS | dict.fromkeys("nm", EXTREME_32) | dict.fromkeys(("far", "farther"), EXTREME_64)
FAR = [load("far", Type.INT, (B,)), load("far", Type.INT, (const(1),))]
FAR_DIVISOR = st.sampled_from([*FAR, const(2**62), const(-1), const(3)])
FAR_INTS = st.recursive(
    POSITION | st.sampled_from(FAR) | st.sampled_from(FAR) | SCALAR,
    lambda inner: st.one_of(
        _grow_int(inner),
        st.builds(make, st.sampled_from([Op.FLOORDIV, Op.MOD, Op.MUL]), inner, FAR_DIVISOR),
        st.builds(make, st.sampled_from([Op.MIN, Op.MAX, Op.ADD, Op.SUB]), inner, st.sampled_from(FAR)),
    ),
    max_leaves=4,
)
FAR_MASKS = st.recursive(
    st.builds(make, st.sampled_from([Op.LT, Op.LE, Op.EQ, Op.NE]), FAR_INTS, FAR_INTS),
    lambda inner: st.one_of(
        st.builds(make, st.sampled_from([Op.AND, Op.OR]), inner, inner),
        st.builds(make, st.just(Op.NOT), inner),
        st.builds(make, st.just(Op.WHERE), inner, inner, inner),
    ),
    max_leaves=3,
)


@settings(max_examples=300, deadline=None)
@given(FAR_MASKS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 4), st.fixed_dictionaries(EXTREMES))
def test_no_input_and_no_param_makes_a_bound_wrap_around(
    mask: Expr, q_len: int, k_len: int, tile: int, scalars: dict[str, int]
) -> None:
    check(mask, Call(mask, q_len, k_len, scalars), tile)


@pytest.mark.parametrize(
    "mask",
    [
        "k <= far[b]",
        "far[b] <= k",
        "far[b] <= dist",
        "dist < far[b]",
        "abs(dist) < far[b]",
        "q - n <= k",
        "dist <= n and m <= dist",
        "2 * k <= far[b]",
        "k // 3 <= far[b]",
        "k < min(far[b], far[1])",
    ],
)
@settings(max_examples=40, deadline=None)
@given(st.fixed_dictionaries(EXTREMES))
def test_usual_masks_stay_bounded_by_extreme_inputs(mask: str, scalars: dict[str, int]) -> None:
    node = expr(mask)
    (keys,) = key_ranges(node, INPUTS)
    assert (keys.possible.lo or keys.possible.hi) and keys.certain
    check(node, Call(node, 5, 6, scalars), 2)


EXACT = (
    "True",
    "0 <= dist",
    "0 <= dist and dist < 4",
    "0 <= dist < n + 4",
    "abs(dist) <= 2",
    "-3 <= dist and dist <= 0",
    "pos >= k or k < lens[b]",
    "0 <= dist and k < lens[b]",
    "pos // 3 == k // 3",
    "pos // 3 == k // 3 and 0 <= dist",
    "pos // max(n, 1) == k // max(n, 1)",
    "pos // max(n, 1) == k // max(n, 1) and 0 <= dist",
    "pos // max(lens[b], 1) < k // max(lens[b], 1)",
    "0 <= pos // max(n, 1) - k // max(n, 1) <= 2",
    "k * max(n, 1) <= pos",
    "pos < k * max(n, 1)",
    "0 <= dist if h % 2 == 0 else True",
    "0 <= dist or p",
    "doc[b, pos] == doc[b, k]",
    "doc[b, pos] == doc[b, k] and 0 <= dist",
    "doc[b, k] <= 2",
    "part[q] == doc[b, k]",
    "doc[b, k] < part[q]",
    "short[k] <= 1",
)


@pytest.mark.parametrize("mask", EXACT)
@settings(max_examples=25, deadline=None)
@given(LENGTHS, LENGTHS, st.integers(1, 5), st.fixed_dictionaries(SCALARS))
def test_usual_masks_visit_no_key_too_many(
    mask: str, q_len: int, k_len: int, tile: int, scalars: dict[str, int]
) -> None:
    node = expr(mask)
    check(node, Call(node, q_len, k_len, scalars), tile, exact="dist" not in mask or "doc" not in mask)


@pytest.mark.parametrize(
    "mask",
    [
        "pos // n == k // n",
        "0 <= pos // n - k // n and pos // n - k // n <= 2",
        "pos // n == k // n and 0 <= dist",
        "pos // lens[b] <= k // lens[b]",
    ],
)
@settings(max_examples=25, deadline=None)
@given(LENGTHS, LENGTHS, st.integers(1, 5), st.fixed_dictionaries(SCALARS))
def test_a_divisor_that_only_the_call_knows_is_solved_where_it_is_positive(
    mask: str, q_len: int, k_len: int, tile: int, scalars: dict[str, int]
) -> None:
    node = expr(mask)
    positive = scalars | {"n": abs(scalars["n"]) + 1, "m": abs(scalars["m"]) + 1}
    check(node, Call(node, q_len, k_len, positive), tile, exact=True)
    check(node, Call(node, q_len, k_len, scalars), tile)


def test_bounds_read_only_scalars_of_a_program() -> None:
    for mask, _ in cases():
        for direction in (key_ranges, query_ranges):
            for range_ in direction(expr(mask)):
                for end in ends(range_):
                    words = {node.value for node in postorder(end) if node.op is Op.WORD}
                    assert not words & {"q", "k", "pos"}, (mask, show(end))


def ends(range_: Range) -> list[Expr]:
    bounds = [range_.possible] + ([range_.certain] if range_.certain else [])
    return [end for bound in bounds for end in (bound.lo, bound.hi) if end is not None]


def _many(op: Op, count: int) -> Expr:
    mask = make(Op.LE, K, POS)
    for i in range(count):
        one = make(Op.AND, make(Op.LT, const(i), K), make(Op.LT, K, make(Op.ADD, Q, const(2 * i))))
        mask = make(op, mask, one)
    return mask


@pytest.mark.parametrize(
    "mask",
    [
        _many(Op.AND, 200),
        _many(Op.OR, 200),
        make(Op.NOT, _many(Op.OR, 200)),
        expr("abs(" * 40 + "k - 3" + ") - 1" * 39 + ") <= q"),
    ],
)
def test_large_masks_take_little_time_and_stay_safe(mask: Expr) -> None:
    start = time.process_time()
    key_ranges(mask)
    query_ranges(mask)
    assert time.process_time() - start < 5
    check(mask, Call(mask, 5, 6, {"b": 0, "h": 0, "n": 1, "m": 1}), 2)
