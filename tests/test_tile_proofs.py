"""EMPTY and FULL are proofs: ranges and pairs of tiles against every score of many random masks."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from functools import partial

import pytest
import torch
from ir_eval import Env, values_in
from ir_text import expr
from torch import Tensor

from attngen import eager
from attngen.analysis.block_range import Bound, Range, key_ranges, query_ranges
from attngen.analysis.pair import may_keep
from attngen.eager import Environment, Grid
from attngen.ir.nodes import Expr, Input, postorder
from attngen.ir.types import Scalar

MASKS, TILES = 500, 20
BATCH, HEADS = 2, 4
INPUTS = (
    Input("doc", "int32", ("batch", "k_len"), sorted=True),
    Input("part", "int64", ("q_len",), sorted=True),
    Input("prefix", "int32", ("batch",)),
    Input("reach", "int32", ("heads",)),
    Input("group", "int32", ("k_len",)),
    Input("keep", "bool", ("q_len", "k_len")),
)


def sizes(rng: random.Random) -> tuple[int, int]:
    """Two lengths that no tile divides, each at times the longer."""
    return rng.randint(1, 70), rng.randint(1, 70)


def number(rng: random.Random) -> str:
    return str(rng.choice((0, 1, 2, 3, 4, 7, 8, 16, 30, -1, -5)))


def term(rng: random.Random, axis: str) -> str:
    """A number that rises and falls, or stays, along one axis."""
    place = rng.choice(("q", "pos")) if axis == "q" else "k"
    n, m = rng.choice((2, 3, 4, 8, 16)), rng.choice((2, 4, 5))
    return rng.choice(
        (
            place,
            f"{place} // {n}",
            f"{place} % {n}",
            f"{place} // {n} % {m}",
            f"{place} % {n} // 2 + {place} // {n} * {m}",
            f"abs({place} - {number(rng)})",
            f"min({place}, {n * m})",
            f"{place} * {m} - {number(rng)}",
            f"doc[b, {place}]",
            "part[q]" if axis == "q" else f"group[{place}]",
            f"clamp({place} // {n}, 1, {m})",
        )
    )


def atom(rng: random.Random) -> str:
    x, y = term(rng, "q"), term(rng, "k")
    window = rng.choice((number(rng), "reach[h]", "prefix[b]", "n", "reach[h] * 2"))
    return rng.choice(
        (
            "0 <= dist",
            f"0 <= dist < {window}",
            f"abs(dist) <= {window}",
            f"k < {rng.choice(('prefix[b]', window))}",
            f"{x} == {y}",
            f"abs(({x}) - ({y})) <= {window}",
            f"{x} <= {y}",
            f"{y} < {x}",
            "doc[b, pos] == doc[b, k]",
            "part[q] == doc[b, k]",
            f"dist % {rng.choice((2, 3, 16))} == 0",
            f"q < {window}",
            "keep[q, k]",
            f"h < {rng.randint(0, 4)}",
            f"{number(rng)} <= {y}",
        )
    )


def mask(rng: random.Random, depth: int = 2) -> str:
    if depth == 0 or rng.random() < 0.2:
        return atom(rng)
    one, other = mask(rng, depth - 1), mask(rng, depth - 1)
    kind = rng.random()
    if kind < 0.45:
        return f"({one}) and ({other})"
    if kind < 0.8:
        return f"({one}) or ({other})"
    if kind < 0.9:
        return f"not ({one})"
    return f"(({one}) if h < {rng.randint(0, 4)} else ({other}))"


class Call:
    """One call: its inputs, and which of all its scores a mask keeps, [batch, heads, q_len, k_len]."""

    def __init__(self, rng: random.Random) -> None:
        self.q_len, self.k_len = sizes(rng)
        draw = partial(rng.randint, -2)
        self.inputs = {
            "doc": [sorted(draw(6) for _ in range(self.k_len)) for _ in range(BATCH)],
            "part": sorted(draw(6) for _ in range(self.q_len)),
            "prefix": [draw(40) for _ in range(BATCH)],
            "reach": [draw(40) for _ in range(HEADS)],
            "group": [draw(3) for _ in range(self.k_len)],
            "keep": [[rng.random() < 0.3 for _ in range(self.k_len)] for _ in range(self.q_len)],
        }
        if rng.random() < 0.25:  # one row of documents for the whole batch
            self.inputs["doc"] = self.inputs["doc"][:1]
        self.params = {"n": draw(20)}
        self.words = {"q_len": self.q_len, "k_len": self.k_len, "batch": BATCH}

    def kept(self, node: Expr) -> Tensor:
        dtypes = {i.name: getattr(torch, i.dtype) for i in INPUTS}
        tensors = {name: torch.tensor(x, dtype=dtypes[name]) for name, x in self.inputs.items()}
        cpu = torch.device("cpu")
        grid = Grid(BATCH, HEADS, HEADS, self.q_len, self.k_len, 1, 1, 0, self.q_len, cpu)
        env = Environment(grid, tensors, self.params, {})
        return eager.evaluate(node, env, torch.float32).expand(grid.shape)

    def values(self, order: Sequence[Expr], **words: int) -> dict[Expr, Scalar]:
        env = Env(words=self.words | words, params=self.params, inputs=self.inputs, wraps=True)
        return values_in(order, env)


def positions(bound: Bound, length: int, values: dict[Expr, Scalar]) -> slice:
    low = int(values[bound.lo]) if bound.lo else 0
    high = int(values[bound.hi]) if bound.hi else length
    low = min(max(low, 0), length)
    return slice(low, max(min(high, length), low))


def tiles(rng: random.Random, length: int) -> tuple[int, int]:
    """The first and the last position of a tile."""
    size = rng.choice((1, 4, 8, 16))
    first = rng.randrange(0, length, size)
    return first, min(first + size, length) - 1


def verdicts(seed: int) -> Iterator[str]:
    """What is wrong with the proofs for one random mask."""
    rng = random.Random(seed)
    text = mask(rng)
    node, call = expr(text), Call(rng)
    kept = call.kept(node)
    by_pair = may_keep(node, INPUTS)
    keys, queries = key_ranges(node, INPUTS), query_ranges(node, INPUTS)
    bounds = [b for one in (*keys, *queries) for b in (one.possible, one.certain) if b]
    order = postorder(by_pair, *(end for b in bounds for end in (b.lo, b.hi) if end))
    for _ in range(TILES):
        b, h = rng.randrange(BATCH), rng.randrange(HEADS)
        words = {"b": b, "h": h, "h_kv": h}
        (q_first, q_last), (k_first, k_last) = tiles(rng, call.q_len), tiles(rng, call.k_len)
        rows, columns = slice(q_first, q_last + 1), slice(k_first, k_last + 1)
        corners = {"q_first": q_first, "q_last": q_last, "k_first": k_first, "k_last": k_last}
        where = f"seed {seed}: {text} at {words} {corners} of {call.q_len} x {call.k_len}"
        here = kept[b, h]
        values = call.values(order, **words, **corners)
        if not values[by_pair] and here[rows, columns].any():
            yield f"a pair called EMPTY keeps something: {where}"
        for ranges, strip in ((keys, here[rows]), (queries, here[:, columns].T)):
            yield from (f"{wrong}: {where}" for wrong in of_ranges(ranges, strip, values))


def of_ranges(ranges: tuple[Range, ...], strip: Tensor, values: dict[Expr, Scalar]) -> Iterator[str]:
    """``strip`` [tile, streamed]: is all that is kept visited, and all that is FULL kept?"""
    length = strip.shape[1]
    left_out = torch.ones(length, dtype=torch.bool)
    for one in ranges:
        left_out[positions(one.possible, length, values)] = False
    if strip[:, left_out].any():
        yield "a score that is kept lies in no range"
    for one in ranges:
        if one.certain is not None and not strip[:, positions(one.certain, length, values)].all():
            yield "a part called FULL is masked somewhere"


@pytest.mark.parametrize("part", range(5))
def test_no_random_mask_makes_a_proof_wrong(part: int) -> None:
    seeds = range(part, MASKS, 5)
    assert not [wrong for seed in seeds for wrong in verdicts(seed)][:3]


def test_the_random_masks_make_all_verdicts_and_proofs() -> None:
    """Else the proofs would hold for lack of claims."""
    masks = [expr(mask(random.Random(seed))) for seed in range(100)]
    ranges = [key_ranges(node, INPUTS) for node in masks]
    assert sum(len(r) > 1 for r in ranges) >= 5
    assert sum(any(one.certain for one in r) for r in ranges) >= 30
    assert sum(bool(may_keep(node, INPUTS).args) for node in masks) >= 30
