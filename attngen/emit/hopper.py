"""What the kernels for sm_90 need beyond the view that they share with Triton's.

A consumer warpgroup computes the lines of its rows itself. ``own`` are the values it takes from its kernel
for them and for its loop: what is the same for a whole program, pointers and strides.
"""

from __future__ import annotations

import re
from dataclasses import astuple

from attngen.emit.scope import Scope
from attngen.emit.tiles import row_blocks
from attngen.emit.view import DenseView, HopperForward, HopperView, Maths, Ranges, Tiles
from attngen.ir.nodes import Op, leaves, mentions
from attngen.plan.short import FILLED
from attngen.plan.tile import HopperTile

# What a consumer has by itself.
_LOCAL = {"q", "pos", "row", "b", "h", "head", "q_first", "q_len", "k_len", "FAST_TANH"}


def make_hopper(
    scope: Scope, maths: Maths, tiles: Tiles, ranges: Ranges, dense: DenseView | None
) -> HopperView:
    """The view of the kernels for sm_90; nothing where the plan has none.

    ``maths`` and ``tiles`` are theirs: they may get an input in tiles that Triton's kernels load.
    """
    hopper = scope.plan.backend.hopper
    if hopper is None:
        return HopperView(None)
    rows = row_blocks(scope)
    local = _LOCAL.union(*(block.defines for block in rows))
    wanted = (*tiles.forward_near.context, *(u for block in rows for u in block.uses))
    wanted += ("kept_scale",) if scope.ir.dropout is not None else ()
    wanted += ("sink",) if scope.ir.sink is not None else ()
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in ranges.key_range.lines)
    in_tiles = hopper.dense.load if hopper.dense else None
    loads = [n for n in leaves(scope.ir.final_score, scope.ir.mask, op=Op.LOAD) if n is not in_tiles]
    reads_by_key = any(mentions(n, "k") for n in loads)
    # Then k stops at the last key, and so does the mask; a tile past it has no run of its own.
    forward = HopperForward(
        logits=maths.logits.call,
        context=tiles.forward_near,
        positions=tiles.positions,
        dense=dense,
        own=tuple(n for n in dict.fromkeys(wanted) if n not in local),
        keep=maths.keep_whole if scope.plan.mask_ends_keys and not reads_by_key else maths.keep_keys,
        reads_by_key=reads_by_key,
        searches=searches if any("hopper_search(" in line for line in searches) else (),
        tiles=tuple((width, _tile_text(tile, dense)) for width, tile in hopper.tiles.items()),
        filled=tuple(FILLED.items()),
    )
    return HopperView(forward)


def _tile_text(tile: HopperTile | None, dense: DenseView | None) -> str:
    """A row of the table, as the launcher takes it apart."""
    if tile is None:
        return "None"
    return repr(astuple(tile) if dense is not None else astuple(tile)[:-1])
