"""EMPTY and FULL are proofs: ranges and pairs of tiles against every score of many random masks."""

from __future__ import annotations

import random
from collections.abc import Iterator

import pytest
import torch
from ir_text import expr
from random_masks import BATCH, HEADS, INPUTS, Call, mask
from torch import Tensor

from attngen.analysis.block_range import Bound, Range, key_ranges, query_ranges
from attngen.analysis.pair import may_keep
from attngen.ir.nodes import Expr, postorder
from attngen.ir.types import Scalar

MASKS, TILES = 500, 20


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
