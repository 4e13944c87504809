"""Random masks over random calls: unions, holes, divisions, remainders, sorted rows, choices by head."""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import partial

import torch
from ir_eval import Env, values_in
from torch import Tensor

from attngen import eager
from attngen.eager import Environment, Grid
from attngen.ir.nodes import Expr, Input
from attngen.ir.types import Scalar

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
            f"{place} // n",
            f"{place} % {n}",
            f"{place} % n",
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

    @property
    def environment(self) -> Environment:
        dtypes = {i.name: getattr(torch, i.dtype) for i in INPUTS}
        tensors = {name: torch.tensor(x, dtype=dtypes[name]) for name, x in self.inputs.items()}
        cpu = torch.device("cpu")
        grid = Grid(BATCH, HEADS, HEADS, self.q_len, self.k_len, 1, 1, 0, self.q_len, cpu)
        return Environment(grid, tensors, self.params, {})

    def kept(self, node: Expr) -> Tensor:
        env = self.environment
        return eager.evaluate(node, env, torch.float32).expand(env.grid.shape)

    def values(self, order: Sequence[Expr], **words: int) -> dict[Expr, Scalar]:
        env = Env(words=self.words | words, params=self.params, inputs=self.inputs, wraps=True)
        return values_in(order, env)
