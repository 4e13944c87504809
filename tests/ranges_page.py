"""Writes docs/ranges.md: the tiles that the zoo's loops visit, beside the fewest that any could.

    python tests/ranges_page.py

Bounds are the plan's own (``attngen.tile_map``); the fewest are counted from the mask, evaluated score by score.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from zoo_samples import sample_of

from attngen.eager import Environment, evaluate
from attngen.ir.nodes import TRUE
from attngen.pipeline import compile_spec
from attngen.reference import bind
from attngen.spec_file import find_spec
from attngen.tile_map import Tile, key_tiles, query_tiles
from attngen.plan.plan import Plan

BLOCK = 64
SHAPES = ((4096, 4096), (3000, 3000), (1000, 3500), (2000, 1200))
_ROWS = 512  # of the mask that are evaluated at a time


@dataclass(frozen=True)
class Count:
    """Tiles visited, those of them that evaluate the mask, and the fewest of both."""

    visited: int
    fewest: int
    masked: int
    fewest_masked: int

    def __add__(self, other: Count) -> Count:
        mine, theirs = vars(self), vars(other)
        return Count(**{name: mine[name] + theirs[name] for name in mine})


def plan_and_call(name: str, q_len: int, k_len: int) -> tuple[Plan, Environment]:
    """One spec's plan, and its sample call at these lengths."""
    sample = sample_of(name)
    source = find_spec(name)
    plan = compile_spec(source, overrides=dict(sample.large)).plan
    read = sample.inputs(q_len, k_len)
    inputs = {i.name: read.get(i.name, torch.zeros([1] * len(i.dims))) for i in plan.ir.inputs}
    params = {p.name: sample.params.get(p.name, p.default) for p in plan.ir.params}
    params = {name: 1 if value is None else value for name, value in params.items()}
    q, k = (torch.empty(1, 1, n, 64) for n in (q_len, k_len))
    return plan, bind(plan.ir, q, k, k, inputs, params)


def needed(plan: Plan, env: Environment) -> Tensor:
    """[query tiles, key tiles]: ``Tile``s as the mask itself has them, score by score."""
    grid = env.grid
    rows = []
    for first in range(0, grid.q_len, _ROWS):
        last = min(first + _ROWS, grid.q_len)
        part = Environment(_rows(grid, first, last), env.inputs, env.params, env.sizes)
        kept = evaluate(plan.ir.mask, part, torch.float32).expand(part.grid.shape)[0, 0]
        k_tiles, q_tiles = -(-grid.k_len // BLOCK), -(-(last - first) // BLOCK)
        # Beyond the keys a mask is needed: the tile is masked for being ragged. Beyond the queries it is not.
        some = torch.nn.functional.pad(kept, (0, k_tiles * BLOCK - grid.k_len), value=False)
        every = torch.nn.functional.pad(some, (0, 0, 0, q_tiles * BLOCK - (last - first)), value=True)
        some = torch.nn.functional.pad(some, (0, 0, 0, q_tiles * BLOCK - (last - first)), value=False)
        shape = (q_tiles, BLOCK, k_tiles, BLOCK)
        some, every = some.view(shape).any(3).any(1), every.view(shape).all(3).all(1)
        rows.append(some.to(torch.int8) + every.to(torch.int8))
    return torch.cat(rows)


def _rows(grid, first, last):
    from dataclasses import replace

    return replace(grid, first_row=first, last_row=last)


def count(found: Tensor, fewest: Tensor) -> Count:
    return Count(
        int((found != Tile.EMPTY).sum()),
        int((fewest != Tile.EMPTY).sum()),
        int((found == Tile.PARTIAL).sum()),
        int((fewest == Tile.PARTIAL).sum()),
    )


def counts(name: str, q_len: int, k_len: int) -> tuple[Count, Count]:
    """Of keys past tiles of queries (forward, dQ), and of queries past tiles of keys (dK, dV)."""
    plan, env = plan_and_call(name, q_len, k_len)
    fewest = needed(plan, env)
    keys = key_tiles(plan.key_loops, env, BLOCK, BLOCK)[0, 0]
    queries = query_tiles(plan.query_loops, env, BLOCK, BLOCK)[0, 0]
    for found in (keys, queries):
        assert not ((found == Tile.EMPTY) & (fewest != Tile.EMPTY)).any(), f"{name}: a kept score is not visited"
        assert not ((found == Tile.FULL) & (fewest != Tile.FULL)).any(), f"{name}: a masked score is not masked"
    return count(keys, fewest), count(queries, fewest)


def masked_specs() -> Iterator[str]:
    from attngen.spec_file import zoo_names

    for name in zoo_names():
        if compile_spec(find_spec(name)).plan.ir.mask is not TRUE:
            yield name

if __name__ == "__main__":
    import sys, time
    for name in sys.argv[1:] or masked_specs():
        t=time.time()
        row = []
        for shape in SHAPES:
            try:
                a, b = counts(name, *shape)
            except AssertionError as e:
                print("ASSERT", name, shape, e); continue
            for c in (a, b):
                row.append(f"{c.visited}/{c.fewest}={c.visited/max(c.fewest,1):.2f} m{c.masked}/{c.fewest_masked}")
        print(f"{name:20}", " | ".join(row), f"{time.time()-t:.1f}s", flush=True)
