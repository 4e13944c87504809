"""The plan's loop bounds as numbers: which tiles one call's kernels visit, and which of those without a mask.

    causal, 4 queries, 6 keys, tiles of 2 x 2      keys past each tile of queries (forward, dQ)
    k k k . . .                                    FULL  PARTIAL EMPTY
    k k k k . .
    k k k k k .                                    FULL  FULL    PARTIAL
    k k k k k k

The bounds are the plan's own expressions, evaluated for every tile at once, and put together as the emitted
``key_range`` and ``query_range`` do it, and ``pick_keys`` and ``pick_queries`` after them;
``tests/test_tile_map.py`` holds the two against each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.functional import pad

from attngen.eager import FLOAT_OPS, INT_OPS, Environment, evaluate, gather
from attngen.ir.nodes import BEYOND, SEARCHES, Expr, Op, postorder
from attngen.ir.types import Type
from attngen.plan.loops import Loops
from attngen.plan.plan import Plan


class Tile(IntEnum):
    """What a loop does with one tile of scores."""

    EMPTY = 0  # not visited
    PARTIAL = 1  # visited, with the mask
    FULL = 2  # visited without it


def key_tiles(plan: Plan, env: Environment, block_m: int, block_n: int) -> Tensor:
    """Of the keys that stream past tiles of queries: (batch, heads, query tiles, key tiles), ``Tile``s."""
    tiles = _tiles(plan.key_loops, env, "q", block_m, block_n)
    return _picked(tiles, plan, plan.key_loops, env, block_m, block_n)


def query_tiles(plan: Plan, env: Environment, block_m: int, block_n: int) -> Tensor:
    """Of the queries that stream past tiles of keys: (batch, heads, query tiles, key tiles), ``Tile``s."""
    tiles = _tiles(plan.query_loops, env, "k", block_n, block_m).mT
    return _picked(tiles, plan, plan.query_loops, env, block_m, block_n)


def _tiles(loops: Loops, env: Environment, tiled: str, own: int, step: int) -> Tensor:
    """(batch, heads, tiles of ``own`` positions along ``tiled``, tiles of ``step`` along the other axis)."""
    grid = env.grid
    length, streamed = (grid.q_len, grid.k_len) if tiled == "q" else (grid.k_len, grid.q_len)
    first = torch.arange(0, length, own)
    last = (first + own).clamp(max=length) - 1
    corners = {f"{tiled}_first": first.view(1, 1, -1, 1), f"{tiled}_last": last.view(1, 1, -1, 1)}
    shape = (grid.batch, grid.heads, len(first))

    def end(root: Expr | None, default: int) -> Tensor:
        value = torch.tensor([default]) if root is None else _value(root, env, corners)
        return value.clamp(0, streamed).expand(*shape, 1)[..., 0]

    def down(x: Tensor) -> Tensor:
        return x // step * step

    def up(x: Tensor) -> Tensor:
        return -(-x // step) * step

    los = [end(r.possible.lo, 0) for r in loops.ranges]
    his = [end(r.possible.hi, streamed) for r in loops.ranges]
    some = [lo < hi for lo, hi in zip(los, his, strict=True)]
    los = [lo.where(s, streamed) for lo, s in zip(los, some, strict=True)]  # an empty one is out of the way
    his = [hi.where(s, 0) for hi, s in zip(his, some, strict=True)]
    for n in reversed(range(len(los) - 1)):
        los[n] = torch.minimum(los[n], los[n + 1])
    whole = (last - first + 1 == own).expand(shape) if tiled == "k" else torch.ones(shape, dtype=torch.bool)
    start = torch.arange(0, streamed, step)
    found = torch.zeros((*shape, len(start)), dtype=torch.int8)
    before = torch.zeros(shape, dtype=torch.int64)
    for lo, hi, r in zip(los, his, loops.ranges, strict=True):
        lo = torch.maximum(torch.minimum(down(lo), up(hi)), before)
        before = hi = torch.maximum(up(hi), lo)
        found[_within(start, lo, hi)] = Tile.PARTIAL
        if r.certain is not None:
            full_lo = torch.maximum(up(end(r.certain.lo, 0)), lo)
            full_hi = torch.minimum(down(end(r.certain.hi, streamed)), hi).where(whole, lo)
            found[_within(start, full_lo, full_hi)] = Tile.FULL
    return found


def _picked(tiles: Tensor, plan: Plan, loops: Loops, env: Environment, block_m: int, block_n: int) -> Tensor:
    """The tiles, but for those that a look at their corners, or at the mask, leaves out."""
    if loops.picks is None:
        return tiles
    if loops.picks.may_keep is None:
        visited = _kept(plan.ir.mask, env, block_m, block_n)
    else:
        q, k = torch.arange(0, env.grid.q_len, block_m), torch.arange(0, env.grid.k_len, block_n)
        corners = {
            "q_first": q.view(1, 1, -1, 1),
            "q_last": (q + block_m).clamp(max=env.grid.q_len).view(1, 1, -1, 1) - 1,
            "k_first": k.view(1, 1, 1, -1),
            "k_last": (k + block_n).clamp(max=env.grid.k_len).view(1, 1, 1, -1) - 1,
        }
        visited = _value(loops.picks.may_keep, env, corners)
    return tiles.where(visited, Tile.EMPTY)


def _kept(mask: Expr, env: Environment, block_m: int, block_n: int) -> Tensor:
    """(batch, heads, query tiles, key tiles): whether the mask keeps any score, a row of tiles at a time."""
    rows = []
    for first in range(0, env.grid.q_len, block_m):
        grid = replace(env.grid, first_row=first, last_row=min(first + block_m, env.grid.q_len))
        kept = evaluate(mask, replace(env, grid=grid), torch.float32).expand(grid.shape).any(2)
        kept = pad(kept, (0, -grid.k_len % block_n))
        rows.append(kept.reshape(grid.batch, grid.heads, -1, block_n).any(-1))
    return torch.stack(rows, 2)


def _within(start: Tensor, lo: Tensor, hi: Tensor) -> Tensor:
    return (lo[..., None] <= start) & (start < hi[..., None])


def _value(root: Expr, env: Environment, corners: Mapping[str, Tensor]) -> Tensor:
    """A value of tiles: broadcastable to (batch, heads, own tiles, streamed tiles).

    What stands in bounds as a float stands under a comparison: float32.
    """
    values: dict[Expr, Tensor] = {}
    for node in postorder(root):
        values[node] = _node(node, [values[a] for a in node.args], env, corners)
    return values[root]


def _node(node: Expr, args: list[Tensor], env: Environment, corners: Mapping[str, Tensor]) -> Tensor:
    name = str(node.value)
    if node.op is Op.WORD:
        return corners[name] if name in corners else env.grid.word(name)
    if node.op is Op.CONST:
        return torch.tensor(node.value)
    if node.op is Op.SIZE:
        return torch.tensor(env.sizes[name])
    if node.op is Op.PARAM:
        return torch.tensor(env.params[name])
    if node.op is Op.LOAD:
        read = gather(env.inputs[name], args)
        return read.to({Type.INT: torch.int64, Type.FLOAT: torch.float32, Type.BOOL: torch.bool}[node.type])
    if node.op in SEARCHES:
        return _place(node.op, env.inputs[name], args[:-1], args[-1])
    if node.op is Op.TO_FLOAT:
        return args[0].float()
    if node.op is Op.FLOOR:
        return torch.floor(args[0])
    return (FLOAT_OPS if node.args[-1].type is Type.FLOAT else INT_OPS)[node.op](*args)


def _place(op: Op, table: Tensor, row: list[Tensor], value: Tensor) -> Tensor:
    """The first place of a row that is at least (FIRST_ABOVE: above) the value."""
    if table.numel() == 0:
        return torch.full_like(value, BEYOND)
    at: list[Tensor] = torch.broadcast_tensors(*row, value)  # type: ignore[no-untyped-call]
    index = tuple(i.clamp(0, n - 1) for i, n in zip(at[:-1], table.shape[:-1], strict=True))
    rows = (table[index] if index else table.expand(*value.shape, -1)).long().contiguous()
    count = torch.searchsorted(rows, at[-1][..., None].contiguous(), right=op is Op.FIRST_ABOVE)[..., 0]
    return torch.where(count == 0, -BEYOND, torch.where(count == table.shape[-1], BEYOND, count))
