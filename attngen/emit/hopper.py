"""What the kernels for sm_90 need beyond the view that they share with Triton's.

A consumer warpgroup computes the lines of its rows itself. ``own`` are the values it takes from its kernel
for them and for its loop: what is the same for a whole program, pointers and strides.
"""

from __future__ import annotations

import re
from dataclasses import astuple

from attngen.emit.scope import Scope
from attngen.emit.tiles import row_blocks
from attngen.emit.view import HopperForward, HopperView, Ranges, Tiles
from attngen.ir.nodes import Op, leaves, mentions
from attngen.plan.short import FILLED

# What a consumer has by itself.
_LOCAL = {"q", "pos", "row", "b", "h", "head", "q_first", "q_len", "k_len", "FAST_TANH"}


def make_hopper(scope: Scope, tiles: Tiles, ranges: Ranges) -> HopperView:
    """The view of the kernels for sm_90; nothing where the plan has none."""
    hopper = scope.plan.backend.hopper
    if hopper is None:
        return HopperView(None)
    rows = row_blocks(scope)
    local = _LOCAL.union(*(block.defines for block in rows))
    wanted = (*tiles.forward_near.context, *(u for block in rows for u in block.uses))
    wanted += ("kept_scale",) if scope.ir.dropout is not None else ()
    wanted += ("sink",) if scope.ir.sink is not None else ()
    searches = tuple(re.sub(r"\bsearch\(", "hopper_search(", line) for line in ranges.key_range.lines)
    forward = HopperForward(
        own=tuple(n for n in dict.fromkeys(wanted) if n not in local),
        reads_by_key=any(mentions(n, "k") for n in leaves(scope.ir.final_score, scope.ir.mask, op=Op.LOAD)),
        searches=searches if any("hopper_search(" in line for line in searches) else (),
        tiles=tuple((width, repr(tile and astuple(tile))) for width, tile in hopper.tiles.items()),
        filled=tuple(FILLED.items()),
    )
    return HopperView(forward)
